"""The application on the test's own database, with clients like programs' and runs executed by the test."""

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import dagster as dg
import psycopg
import pytest
from starlette.testclient import TestClient

from dagster_backfills.dagster.private import command_of_run
from dagster_backfills.instance.dagster_home import dagster_environment
from dagster_backfills.web.app import create_app
from dagster_backfills.web.queue_actions import DRAIN
from dagster_backfills.web.settings import Limits, Settings, Token
from dagster_backfills_tests.domains.kintell.sample import add_users
from dagster_backfills_tests.programs import run as execute
from dagster_backfills_tests.web.documented import is_as_documented

SECRETS = {scope: f"the-secret-of-{scope}" for scope in ("imports", "jobs", "cron", "backfills")}
PROXY_SECRET = "the-secret-of-the-proxy"
ADDRESS = "http://127.0.0.1:3001"
SMALL = Limits(upload_bytes=300_000, requests_per_second=1000, wait_seconds=120)


def bearer(scope: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {SECRETS[scope]}"}


def settings(folder: Path, **changes: object) -> Settings:
    tokens = [Token(name=scope, token=secret, scopes={scope}) for scope, secret in SECRETS.items()]
    tokens.append(Token(name="acme", token="the-secret-of-acme", scopes={"jobs"}, company_id="acme"))
    tokens.append(Token(name="looker", token="the-secret-of-looker", scopes={"imports:read"}))
    given = {"tokens": tuple(tokens), "limits": SMALL, "spool": folder / "spool", **changes}
    return Settings(**given)  # type: ignore[arg-type]


@pytest.fixture(autouse=True)
def quick_to_end(monkeypatch: pytest.MonkeyPatch) -> None:
    """Shortens the wait of a closing application for its listener."""
    monkeypatch.setattr("dagster_backfills.web.events._LISTEN_SECONDS", 0.05)


@contextmanager
def environment_of_a_server(database_url: str, folder: Path) -> Iterator[Path]:
    """Sets this process's environment to a database with users and to separate folders."""
    with psycopg.connect(database_url, autocommit=True) as conn:
        add_users(conn)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("DATABASE_URL", database_url)
        patch.setenv("KINTELL_UPLOADS", str(folder / "uploads"))
        patch.setenv("KINTELL_ERROR_FILES", str(folder / "errors"))
        patch.setenv("KINTELL_ALLOWED_LOCATIONS", str(folder / "allowed"))
        patch.setenv("BACKFILLS_HOME", str(folder / "home"))
        yield folder


@pytest.fixture
def database_url(database_with_dagster: str) -> str:
    return database_with_dagster


@pytest.fixture
def place(database_url: str, tmp_path: Path) -> Iterator[Path]:
    """The environment of a server for one test."""
    with environment_of_a_server(database_url, tmp_path) as folder:
        yield folder


@pytest.fixture
def open_doors(place: Path) -> Iterator[Callable[..., TestClient]]:
    """A client of an application with these settings. `client`: the apparent address of the client."""
    opened: list[TestClient] = []

    def make(client: str = "127.0.0.1", address: str = ADDRESS, **changes: object) -> TestClient:
        app = create_app(settings(place, **changes))
        opened.append(TestClient(app, address, client=(client, 50000), raise_server_exceptions=False))
        opened[-1].event_hooks = {"response": [is_as_documented]}
        opened[-1].__enter__()
        return opened[-1]

    yield make
    for each in reversed(opened):
        each.__exit__(None, None, None)


@pytest.fixture
def doors(open_doors: Callable[..., TestClient]) -> TestClient:
    """A client on another machine: without a token it is not authenticated."""
    return open_doors(client="10.0.0.9")


def work_off_runs() -> list[str]:
    """Executes the queued runs like the daemon, each in its own process. Returns their statuses."""
    os.environ.update(dagster_environment())
    with dg.DagsterInstance.get() as instance:
        queued = instance.get_runs(dg.RunsFilter(statuses=[dg.DagsterRunStatus.QUEUED]))
        for run in reversed(queued):
            if run.job_name == DRAIN:  # nothing is enqueued later, which it would wait for
                hurried = run._replace(run_config={**run.run_config, "idle_seconds": 0.5})
                instance.run_storage.replace_job_origin(hurried, run.remote_job_origin)
            starting = dg.DagsterEvent(dg.DagsterEventType.PIPELINE_STARTING.value, run.job_name)
            instance.report_dagster_event(starting, run.run_id)
            done = execute(command_of_run(run.run_id, run.job_code_origin))
            assert done.returncode == 0, done.stderr[-3000:]
        return [instance.get_run_by_id(run.run_id).status.value for run in reversed(queued)]


def left_behind(place: Path) -> list[Path]:
    """Files that are left of uploads."""
    return [file for folder in ("spool", "uploads") for file in (place / folder).rglob("*") if file.is_file()]
