"""The command `backfills` in a process, on the test's own database."""

import os
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping

import pytest
from psycopg.conninfo import conninfo_to_dict

from dagster_backfills_tests.conftest import new_database
from dagster_backfills_tests.programs import SCRIPT, run

Cli = Callable[..., subprocess.CompletedProcess[str]]


def with_database(url: str, name: str) -> str:
    head, _, tail = url.partition("?")
    return f"{head.rsplit('/', 1)[0]}/{name}?{tail}"


def eventually(condition: Callable[[], object], patience: float = 600) -> None:
    """Waits for a condition. The time limit is long enough for a busy machine; no test depends on it."""
    deadline = time.monotonic() + patience
    while not condition():
        assert time.monotonic() < deadline, "it never happened"
        time.sleep(0.2)


@pytest.fixture
def cli(database_url: str) -> Cli:
    """Runs `backfills …` on the test's database, or with other variables."""

    def backfills(*arguments: str, env: Mapping[str, str] | None = None) -> subprocess.CompletedProcess[str]:
        variables = os.environ | {"DATABASE_URL": database_url} | dict(env or {})
        return run([SCRIPT, *arguments], env=variables)

    return backfills


@pytest.fixture(scope="module")
def instance_variables(server_url: str, template: str) -> Iterator[dict[str, str]]:
    """Variables of a migrated database that a module's tests share, with a Dagster instance in it."""
    with new_database(server_url, template) as url:
        yield {"DATABASE_URL": url}


def user_of(url: str, user: str, password: str = "") -> str:
    """The same database for another user, over the same socket."""
    given = conninfo_to_dict(url)
    login = f"{user}:{password}" if password else user
    return f"postgresql://{login}@/{given['dbname']}?host={given['host']}&port={given.get('port', 5432)}"
