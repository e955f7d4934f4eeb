"""Real Postgres for every test: one server per session, one database per test, cloned from a migrated template.

Everything is removed when the session ends, even by SIGKILL. The developer's own data and settings are not touched.
"""

import gc
import os
import re
import subprocess
import sys
import tempfile
import uuid
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from multiprocessing.process import BaseProcess
from pathlib import Path

import psycopg
import pytest
from alembic.config import Config
from alembic.script import ScriptDirectory
from psycopg import sql
from psycopg.conninfo import conninfo_to_dict
from sqlalchemy.pool import SingletonThreadPool

from dagster_backfills.instance.dagster_home import dagster_database_url
from dagster_backfills.postgres.embedded import EmbeddedServer
from dagster_backfills.postgres.migrations import apply_migrations

# Otherwise each of the many processes that tests start would compile everything again.
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
sys.dont_write_bytecode = False
# Half of the time of a collection would be spent on collecting garbage.
gc.disable()
# Test data does not have to survive a power failure.
_FAST = {
    "fsync": "off",
    "synchronous_commit": "off",
    "full_page_writes": "off",
    "wal_level": "minimal",
    "max_wal_senders": "0",
    "shared_buffers": "128MB",
    # Tests that need statistics run ANALYZE. One worker per minute and database would only slow them down.
    "autovacuum": "off",
    "max_wal_size": "256MB",
}
_OWN_VARIABLES = (
    "DATABASE_URL",
    "DAGSTER_HOME",
    "DAGSTER_POSTGRES_URL",
    "DAGSTER_EVENT_BATCH_SIZE",
    "BACKFILLS_DOMAINS",
    "BACKFILLS_DEBUG",
    "SCORING_FIRST_DAY",
    "KINTELL_FIRST_DAY",
)
# Waits for the end of its input, which comes when the session ends, even by SIGKILL. Then removes the servers.
_UNDERTAKER = """
import shutil, sys
from pathlib import Path
from dagster_backfills.postgres.embedded import EmbeddedServer
sys.stdin.read()
for state in sys.argv[1:]:
    EmbeddedServer(Path(state)).delete()
    shutil.rmtree(state, ignore_errors=True)
"""
# Each test creates and deletes a database of 550 files: five times as fast in memory.
_MEMORY = Path("/dev/shm")
_MEMORY_NEEDED = 2_000_000_000


# Fixtures that start a process.
_PROGRAMS = {"cli", "nats_server", "nursery", "soffice"}
# A file whose tests all start one, and the folders of such files.
_ALL_MARKED = re.compile(r"^pytestmark = \[?pytest\.mark\.(chaos|e2e|programs)\b", re.MULTILINE)
_FOLDERS_ALL_MARKED = {"chaos", "e2e", "door"}


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark tests that use a process fixture, and run slow files first, so that none is left alone at the end."""
    for item in items:
        if _PROGRAMS & set(getattr(item, "fixturenames", ())):
            item.add_marker("programs")
    slow = {item.path for item in items if item.get_closest_marker("e2e")}
    processes = {item.path for item in items if item.get_closest_marker("programs")}
    items.sort(key=lambda item: (item.path not in slow, item.path not in processes))


def pytest_collection() -> None:
    gc.disable()


def pytest_collection_finish() -> None:
    """Exclude everything imported so far from garbage collection."""
    gc.freeze()
    gc.enable()


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    """In `make quick`, leave out the files whose tests all start processes: importing them takes seconds."""
    if not {"not chaos", "not e2e", "not programs"} <= set(config.option.markexpr.split(" and ")):
        return None
    if collection_path.suffix == ".py":
        return bool(_ALL_MARKED.search(collection_path.read_text("utf-8"))) or None
    return collection_path.name in _FOLDERS_ALL_MARKED or None


@pytest.fixture(autouse=True)
def _a_test_that_starts_a_process_is_marked(
    request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In `make quick`, fail a test that starts a process without the mark. Session fixtures are not affected."""

    def refuse(*args: object, **named: object) -> None:
        raise AssertionError("Mark this test `programs`, or `e2e`: it starts a process.")

    if "not programs" in request.config.option.markexpr:
        monkeypatch.setattr(subprocess.Popen, "__init__", refuse)
        monkeypatch.setattr(BaseProcess, "start", refuse)


@pytest.fixture(scope="session", autouse=True)
def _session_state(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A state folder for this session, without the developer's environment variables."""
    state, server = tmp_path_factory.mktemp("state"), _server_folder(tmp_path_factory)
    command = [sys.executable, "-c", _UNDERTAKER, str(state), str(server)]
    undertaker = subprocess.Popen(command, stdin=subprocess.PIPE, start_new_session=True)
    with pytest.MonkeyPatch.context() as patch:
        for name in _OWN_VARIABLES:
            patch.delenv(name, raising=False)
        patch.setenv("BACKFILLS_HOME", str(state))
        yield server
    undertaker.communicate()


@pytest.fixture(scope="session", autouse=True)
def _dagsters_migrations_are_read_once() -> Iterator[None]:
    """Cache Alembic's scripts: each new Dagster instance reads ninety files just to record the latest revision."""
    read, known = ScriptDirectory.from_config, dict[str | None, ScriptDirectory]()

    def read_once(config: Config) -> ScriptDirectory:
        where = config.get_main_option("script_location")
        if where not in known:
            known[where] = read(config)
        return known[where]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ScriptDirectory, "from_config", read_once)
        yield


@pytest.fixture(scope="session", autouse=True)
def _dagsters_databases_in_memory_keep_their_connections() -> Iterator[None]:
    """Otherwise Dagster opens one for each statement, which takes a tenth of the time of a run."""
    with pytest.MonkeyPatch.context() as patch:
        for storage in ("event_log", "runs"):
            patch.setattr(f"dagster._core.storage.{storage}.in_memory.NullPool", SingletonThreadPool)
        yield


def _server_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder in memory, if there is enough of it and it allows execution; readable by the user of Postgres."""
    if _MEMORY.is_dir() and os.access(_MEMORY, os.W_OK):
        found = os.statvfs(_MEMORY)
        if found.f_bavail * found.f_frsize > _MEMORY_NEEDED and not found.f_flag & os.ST_NOEXEC:
            folder = Path(tempfile.mkdtemp(prefix="backfills-tests-", dir=_MEMORY))
            folder.chmod(0o711)
            return folder
    return tmp_path_factory.mktemp("server")


@pytest.fixture(autouse=True)
def _environment_is_put_back() -> Iterator[None]:
    """The command line sets these for the processes that it starts. The next test must not inherit them."""
    before = {name: os.environ.get(name) for name in _OWN_VARIABLES}
    yield
    for name, value in before.items():
        if value is None:
            os.environ.pop(name, None)
        else:
            os.environ[name] = value


@pytest.fixture(scope="session")
def server_url(_session_state: Path) -> Iterator[str]:
    """The URL of the server's maintenance database: `TEST_DATABASE_URL`, or an embedded server."""
    given = os.environ.get("TEST_DATABASE_URL")
    server = EmbeddedServer(_session_state, _FAST)
    if not given:
        server.start()
    yield given or server.url("postgres")
    for kept in _kept.values():
        kept.close()


def _database(url: str, name: str) -> str:
    head, _, tail = url.partition("?")
    return f"{head.rsplit('/', 1)[0]}/{name}" + (f"?{tail}" if tail else "")


def database_name(url: str) -> str:
    return str(conninfo_to_dict(url)["dbname"])


@pytest.fixture(scope="session")
def template(server_url: str) -> Iterator[str]:
    """The name of the migrated template database."""
    with new_database(server_url, "template1") as url:
        apply_migrations(url)
        yield database_name(url)


@pytest.fixture(scope="session")
def dagsters_template(server_url: str, template: str) -> Iterator[str]:
    """The name of a migrated database with Dagster's tables, in its schema `dagster`: they take 0.4 s to create."""
    with new_database(server_url, template) as url:
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("DATABASE_URL", url)
            dagster_database_url()
        yield database_name(url)


# The connection to the maintenance database is kept: to connect costs a third of what a database costs.
_kept: dict[str, psycopg.Connection] = {}


def _maintain(server_url: str, statement: sql.Composed) -> None:
    """Execute a statement in the maintenance database."""
    if server_url not in _kept:
        _kept[server_url] = psycopg.connect(server_url, autocommit=True)
    try:
        _kept[server_url].execute(statement)
    except psycopg.OperationalError:
        if not _kept[server_url].closed:
            raise
        # A test has ended the server's connections.
        _kept[server_url] = psycopg.connect(server_url, autocommit=True)
        _kept[server_url].execute(statement)


@contextmanager
def new_database(server_url: str, template: str) -> Iterator[str]:
    """Yields the URL of a database cloned from `template`, which is dropped at the end."""
    name = f"test_{uuid.uuid4().hex[:12]}"
    clone = sql.SQL("create database {} template {} strategy file_copy").format(
        sql.Identifier(name), sql.Identifier(template)
    )
    _maintain(server_url, clone)
    yield _database(server_url, name)
    _maintain(server_url, sql.SQL("drop database if exists {} with (force)").format(sql.Identifier(name)))


@pytest.fixture
def make_database(server_url: str, template: str) -> Iterator[Callable[..., str]]:
    """A function that creates a database and returns its URL; without tables if `migrated=False`."""
    with ExitStack() as made:
        yield lambda migrated=True: made.enter_context(
            new_database(server_url, template if migrated else "template1")
        )


@pytest.fixture
def database_url(make_database: Callable[..., str]) -> str:
    """The URL of a migrated, empty database for this test."""
    return make_database()


@pytest.fixture
def database_with_dagster(server_url: str, dagsters_template: str) -> Iterator[str]:
    """The URL of a migrated, empty database for this test, with Dagster's tables in its schema `dagster`."""
    with new_database(server_url, dagsters_template) as url:
        yield url


@pytest.fixture
def conn(database_url: str) -> Iterator[psycopg.Connection]:
    """An autocommit connection to the test's database."""
    with psycopg.connect(database_url, autocommit=True) as connection:
        yield connection


@pytest.fixture(scope="session")
def project_root() -> Path:
    return Path(__file__).resolve().parents[1]
