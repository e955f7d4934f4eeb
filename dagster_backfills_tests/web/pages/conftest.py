"""The pages on the test's own database, read like a browser without JavaScript, or in Chromium."""

import socket
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psycopg
import pytest
import uvicorn
from starlette.applications import Starlette
from starlette.testclient import TestClient

from dagster_backfills.web.app import create_app
from dagster_backfills.web.settings import Limits, Settings
from dagster_backfills_tests.domains.kintell.sample import add_users

ADDRESS = "http://127.0.0.1:3001"
SECRET = "the-secret-of-the-proxy"
# Headers that the proxy sends for a viewer.
LOOKING = {"X-Proxy-Secret": SECRET, "X-Forwarded-User": "vera", "X-Forwarded-Role": "viewer"}


@pytest.fixture
def make_app(
    conn: psycopg.Connection, database_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Callable[..., Starlette]:
    """The application, for local users, or `behind_proxy`."""
    add_users(conn)
    monkeypatch.setenv("DATABASE_URL", database_url)
    monkeypatch.setenv("KINTELL_UPLOADS", str(tmp_path / "uploads"))
    monkeypatch.setenv("KINTELL_ALLOWED_LOCATIONS", str(tmp_path / "allowed"))
    monkeypatch.setenv("BACKFILLS_HOME", str(tmp_path / "home"))
    # A page waits for its check, however busy the machine is, because without a script it is not reloaded.
    monkeypatch.setattr("dagster_backfills.web.pages.files._WAIT_SECONDS", 120.0)

    def make(behind_proxy: bool = False) -> Starlette:
        limits, secret = Limits(requests_per_second=1000), SECRET if behind_proxy else ""
        return create_app(Settings(proxy_secret=secret, limits=limits, spool=tmp_path / "spool"))

    return make


@pytest.fixture
def pages(make_app: Callable[..., Starlette]) -> Iterator[TestClient]:
    """A local user."""
    client = TestClient(make_app(), ADDRESS, client=("127.0.0.1", 50000))
    with client:
        yield client


@pytest.fixture
def looking(make_app: Callable[..., Starlette]) -> Iterator[TestClient]:
    """A viewer, who may change nothing."""
    with TestClient(make_app(behind_proxy=True), ADDRESS, headers=LOOKING) as client:
        yield client


@pytest.fixture
def served(make_app: Callable[..., Starlette]) -> Iterator[str]:
    """The URL of a real server on loopback."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        server = uvicorn.Server(uvicorn.Config(make_app(), log_level="warning", timeout_graceful_shutdown=2))
        running = threading.Thread(target=server.run, kwargs={"sockets": [free]}, daemon=True)
        running.start()
        while not server.started and running.is_alive():
            time.sleep(0.02)
        yield f"http://127.0.0.1:{free.getsockname()[1]}"
        server.should_exit = True
        running.join(20)
