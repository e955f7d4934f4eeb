"""A real webserver and daemon on the project's own instance settings, for whole runs as the UI launches them."""

import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import psycopg
import pytest

from benchmarks.servers import Webserver, dagster_servers
from dagster_backfills_tests.conftest import new_database


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
    separator = "&" if "?" in database_url else "?"
    return {
        "DAGSTER_HOME": str(home),
        "DATABASE_URL": database_url,
        "DAGSTER_POSTGRES_URL": f"{database_url}{separator}options=-csearch_path%3Ddagster",
    }


@pytest.fixture(scope="module")
def stack(
    server_url: str, template: str, project_root: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Stack]:
    home = tmp_path_factory.mktemp("dagster_home")
    shutil.copy(project_root / "dagster.yaml", home)
    with new_database(server_url, template) as database_url:
        environment = instance_environment(database_url, home)
        with dagster_servers(
            home, "dagster_backfills.definitions", environment, working_directory=project_root
        ) as webserver:
            yield Stack(webserver, home, environment, database_url)
