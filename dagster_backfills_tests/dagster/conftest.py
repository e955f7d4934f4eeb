"""The table and the Dagster instance that the tests of this folder write to."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import dagster as dg
import pytest
from psycopg.conninfo import conninfo_to_dict

from dagster_backfills_tests.conftest import new_database

SETTINGS = "storage: {postgres: {postgres_url: {env: EVENTS_TEST_URL}}}\ntelemetry: {enabled: false}\n"


@pytest.fixture
def table(conn):
    """A table `t.items(part, id, v)` with the key `(part, id)`."""
    conn.execute("create schema t")
    conn.execute("create table t.items (part text, id int, v text, primary key (part, id))")
    return "t.items"


@contextmanager
def _stored_in(url: str, folder: Path, patch: pytest.MonkeyPatch) -> Iterator[dg.DagsterInstance]:
    patch.setenv("EVENTS_TEST_URL", url.replace("postgresql://", "postgresql+psycopg2://", 1))
    (folder / "dagster.yaml").write_text(SETTINGS)
    with dg.DagsterInstance.from_config(str(folder)) as made:
        yield made


@pytest.fixture(scope="session")
def dagsters_tables(server_url: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The name of a template database with Dagster's tables, because creating them takes half a second."""
    folder = tmp_path_factory.mktemp("dagsters_tables")
    with new_database(server_url, "template1") as url:
        with pytest.MonkeyPatch.context() as patch, _stored_in(url, folder, patch):
            pass
        yield str(conninfo_to_dict(url)["dbname"])


@pytest.fixture
def instance(
    server_url: str, dagsters_tables: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[dg.DagsterInstance]:
    monkeypatch.setenv("DAGSTER_EVENT_BATCH_SIZE", "1000")
    with (
        new_database(server_url, dagsters_tables) as url,
        _stored_in(url, tmp_path, monkeypatch) as made,
    ):
        yield made
