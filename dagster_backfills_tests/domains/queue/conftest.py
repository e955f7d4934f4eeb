"""Fixtures of the queue's tests: a registry of harmless types, and settings that make them fast."""

from collections.abc import Callable

import psycopg
import pytest

from dagster_backfills.domains.queue.registry import Registry
from dagster_backfills_tests.domains.queue.harmless import harmless_types


@pytest.fixture
def registry() -> Registry:
    return harmless_types()


@pytest.fixture
def jobs_db(database_url: str) -> str:
    """A database with the harmless types registered, short leases and quick retries."""
    with psycopg.connect(database_url, autocommit=True) as conn:
        conn.execute("update jobs.queue_settings set lease = '3 seconds', retry_base = '0 seconds'")
        for kind in harmless_types():
            conn.execute("insert into jobs.job_types (job_type) values (%s)", [kind.name])
    return database_url


@pytest.fixture
def db(jobs_db: str):
    with psycopg.connect(jobs_db, autocommit=True) as conn:
        yield conn


@pytest.fixture
def status_of(db: psycopg.Connection) -> Callable[..., str]:
    def status(job_id) -> str:
        row = db.execute("select status from jobs.background_jobs where id = %s", [job_id]).fetchone()
        return row[0]

    return status


@pytest.fixture
def no_accounts(monkeypatch):
    for name in ("OPENAI_API_KEY", "OPENAI_BASE_URL", "MUX_TOKEN_ID", "MUX_TOKEN_SECRET"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.setenv("JOBS_MEDIA_FOLDERS", str(tmp_path))
    return tmp_path
