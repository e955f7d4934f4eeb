"""Dagster's webserver with our authorization, on its own code location, with requests like the proxy's."""

import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import dagster as dg
import psycopg
import pytest
from dagster._core.workspace.context import WorkspaceProcessContext
from dagster._core.workspace.load_target import ModuleTarget
from psycopg.rows import dict_row
from starlette.testclient import TestClient

from dagster_backfills.engine.audit import latest
from dagster_backfills.instance.door.webserver import Door
from dagster_backfills_tests.conftest import new_database

LOCATION, REPOSITORY = "door", "__repository__"
SECRET = "what only the proxy knows"
ROLES = """
[users.vera]
"*" = "view"
[users.olga]
"*" = "admin"
[users.lena]
"*" = "launch"
[groups.trainers]
training = "launch"
[groups.menders]
training = "undo"
"""


@dataclass
class Answer:
    """A response: the data of one mutation, and error messages."""

    status: int
    data: Any
    errors: list[str]

    @property
    def refused(self) -> bool:
        messages = [*self.errors, *(str(each.get("message")) for each in self.results())]
        return any(" may not " in message for message in messages)

    def results(self) -> list[dict[str, Any]]:
        return [each for each in (self.data or {}).values() if isinstance(each, dict)]


@dataclass
class Served:
    """The webserver, its instance, and the database with the audit log."""

    client: TestClient
    instance: dg.DagsterInstance
    schema: Any
    database_url: str

    def ask(
        self, user: str, query: str, groups: str = "", operation: str | None = None, **variables: Any
    ) -> Answer:
        body = {"query": query, "variables": variables, "operationName": operation}
        answer = self.client.post("/graphql", json=body, headers=headers(user, groups))
        payload = answer.json()
        return Answer(
            answer.status_code, payload.get("data"), [e["message"] for e in payload.get("errors", ())]
        )

    def launched(self) -> int:
        """The number of runs and backfills."""
        return len(self.instance.get_runs()) + len(self.instance.get_backfills())

    def audit(self, limit: int = 100) -> list[dict[str, Any]]:
        with psycopg.connect(self.database_url) as conn:
            return latest(conn, limit)

    def rows(self) -> list[dict[str, Any]]:
        with psycopg.connect(self.database_url, row_factory=dict_row) as conn:
            return conn.execute("select * from backfill.audit order by id").fetchall()


def headers(user: str, groups: str = "") -> dict[str, str]:
    return {"X-Proxy-Secret": SECRET, "X-Forwarded-User": user, "X-Forwarded-Groups": groups}


@pytest.fixture(scope="module")
def served(server_url: str, template: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    folder = tmp_path_factory.mktemp("door")
    (folder / "roles.toml").write_text(ROLES)
    target = ModuleTarget("dagster_backfills_tests.instance.door.location", None, str(Path.cwd()), LOCATION)
    queued: Mapping[str, Any] = {"module": "dagster", "class": "QueuedRunCoordinator"}
    with (
        new_database(server_url, template) as url,
        pytest.MonkeyPatch.context() as patch,
        dg.DagsterInstance.local_temp(str(folder), {"run_coordinator": queued}) as instance,
        WorkspaceProcessContext(instance, target) as workspace,
    ):
        patch.setenv("DATABASE_URL", url)
        patch.setenv("BACKFILLS_PROXY_SECRET", SECRET)
        patch.setenv("BACKFILLS_ROLES", str(folder / "roles.toml"))
        door = Door(workspace)
        with TestClient(door.create_asgi_app()) as client:
            yield Served(client, instance, door._graphene_schema.graphql_schema, url)
    os.environ.pop("DATABASE_URL", None)
