"""A real webserver and daemon on the project's own instance settings, for whole runs as the UI launches them."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import psycopg
import pytest

from benchmarks.servers import Webserver, dagster_servers
from dagster_backfills.instance.dagster_home import with_search_path
from dagster_backfills_tests.conftest import new_database
from dagster_backfills_tests.e2e.graphql import LOCATION
from dagster_backfills_tests.e2e.own_project import make_environment
from dagster_backfills_tests.haste import HASTE, MONITORING, hurried


@dataclass(frozen=True)
class Stack:
    """The UI, its instance's folder, the environment of its processes, and the database they all use."""

    webserver: Webserver
    home: Path
    environment: dict[str, str]
    database_url: str

    def connect(self) -> psycopg.Connection:
        return psycopg.connect(self.database_url, autocommit=True)


def instance_environment(database_url: str, home: Path) -> dict[str, str]:
    """What every process of an instance has in its environment; Dagster's own tables are in the schema `dagster`."""
    with psycopg.connect(database_url, autocommit=True) as conn:
        conn.execute("create schema if not exists dagster")
    return {
        "DAGSTER_HOME": str(home),
        "DATABASE_URL": database_url,
        "DAGSTER_POSTGRES_URL": with_search_path(database_url, "dagster"),
    }


class StackFactory(Protocol):
    """Starts a stack on a database of its own, with every table (unless `migrated` is false) and no rows.

    module: the code location. fill: what is in the database before anything looks at it. variables: more of the
    processes' environment. The daemon looks oftener than an installation's.
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
            with dagster_servers(
                home, module, environment, working_directory=project_root, haste=HASTE
            ) as webserver:
                yield Stack(webserver, home, environment, database_url)

    return start


@pytest.fixture(scope="session")
def adopters_environment(tmp_path_factory: pytest.TempPathFactory, project_root: Path) -> Path:
    """A virtual environment with the wheel, to be copied."""
    return make_environment(tmp_path_factory.mktemp("adopter"), project_root)


@pytest.fixture(scope="module")
def stack(start_stack: StackFactory) -> Iterator[Stack]:
    with start_stack() as started:
        yield started
