"""Fixtures that start a real webserver and daemon with the project's instance settings."""

import os
import socket
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import psycopg
import pytest

from benchmarks.servers import ServerFailed, Webserver, dagster_servers, free_port, stop_groups
from dagster_backfills.instance.dagster_home import with_search_path
from dagster_backfills_tests.conftest import new_database
from dagster_backfills_tests.e2e.graphql import LOCATION, wait_for
from dagster_backfills_tests.haste import HASTE, MONITORING, hurried
from dagster_backfills_tests.programs import Program, start_server


@dataclass(frozen=True)
class Stack:
    """A running webserver, its DAGSTER_HOME, and the environment and database of its processes."""

    webserver: Webserver
    home: Path
    environment: dict[str, str]
    database_url: str

    def connect(self) -> psycopg.Connection:
        return psycopg.connect(self.database_url, autocommit=True)


def instance_environment(database_url: str, home: Path) -> dict[str, str]:
    """The environment of an instance's processes. Dagster's own tables are in the schema `dagster`."""
    with psycopg.connect(database_url, autocommit=True) as conn:
        conn.execute("create schema if not exists dagster")
    return {
        "DAGSTER_HOME": str(home),
        "DATABASE_URL": database_url,
        "DAGSTER_POSTGRES_URL": with_search_path(database_url, "dagster"),
    }


class StackFactory(Protocol):
    """Starts a stack on a new, empty database, with every table unless `migrated` is false.

    module: the code location. fill: inserts data before the servers start. variables: additional environment
    variables of the processes. The daemon has shorter intervals than in production.
    """

    def __call__(
        self,
        module: str = LOCATION,
        *,
        fill: Callable[[psycopg.Connection], None] | None = None,
        variables: Mapping[str, str] | None = None,
        migrated: bool = True,
    ) -> AbstractContextManager[Stack]: ...


@pytest.fixture(scope="module")
def start_stack(
    server_url: str, template: str, project_root: Path, tmp_path_factory: pytest.TempPathFactory
) -> StackFactory:
    @contextmanager
    def start(
        module: str = LOCATION,
        *,
        fill: Callable[[psycopg.Connection], None] | None = None,
        variables: Mapping[str, str] | None = None,
        migrated: bool = True,
    ) -> Iterator[Stack]:
        home = tmp_path_factory.mktemp("dagster_home")
        (home / "dagster.yaml").write_text(hurried((project_root / "dagster.yaml").read_text(), MONITORING))
        with new_database(server_url, template if migrated else "template1") as database_url:
            if fill is not None:
                with psycopg.connect(database_url, autocommit=True) as conn:
                    fill(conn)
            environment = {**instance_environment(database_url, home), **(variables or {})}
            with swift_servers(home, module, environment, project_root) as webserver:
                yield Stack(webserver, home, environment, database_url)

    return start


@contextmanager
def swift_servers(
    home: Path, module: str, environment: Mapping[str, str], folder: Path
) -> Iterator[Webserver]:
    """Start one code server for the webserver and the daemon. All of these and the runs are forked."""
    host, port = "127.0.0.1", free_port()
    code = [sys.executable, "-m", "dagster_backfills_tests.code_server", "api", "grpc", "-m", module]
    command = [*code, "-d", str(folder), "-h", host, "-p", str(port)]
    env = {**os.environ, "DAGSTER_HOME": str(home), **environment}
    with ended_at_last(start_server(command, home / "code_server.log", env, folder)) as code_server:

        def answers() -> bool:
            if code_server.poll() is not None:
                raise ServerFailed((home / "code_server.log").read_text()[-3000:])
            with socket.socket() as probe:
                return not probe.connect_ex((host, port))

        wait_for("the code server", answers, timeout=300)
        with dagster_servers(
            home, module, environment, working_directory=folder, haste=HASTE, code_server=(host, port),
            start=start_server,
        ) as webserver:  # fmt: skip
            yield webserver


@contextmanager
def ended_at_last(program: Program) -> Iterator[Program]:
    """Kill the program and its whole group at the end."""
    try:
        yield program
    finally:
        stop_groups([program])


@pytest.fixture(scope="module")
def stack(start_stack: StackFactory) -> Iterator[Stack]:
    with start_stack() as started:
        yield started
