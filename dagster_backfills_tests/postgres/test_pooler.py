"""Behind a real PgBouncer: session mode works, and the other modes fail at once with the reason."""

import getpass
import os
import pwd
import shutil
import socket
import subprocess
import time
from contextlib import contextmanager
from pathlib import Path

import dagster as dg
import psycopg
import pytest
from psycopg.conninfo import conninfo_to_dict

from dagster_backfills.cli import doctor_postgres
from dagster_backfills.cli.finding import Level
from dagster_backfills.cli.instance import read_instance
from dagster_backfills.components.refresh import build_job
from dagster_backfills.dagster.io_manager import PostgresIOManager
from dagster_backfills.dagster.resource import PostgresResource
from dagster_backfills.defs.training.declared import TRAINING
from dagster_backfills.errors import NotUsableError
from dagster_backfills.instance.dagster_home import dagster_environment
from dagster_backfills.instance.storage import BatchedPostgresStorage
from dagster_backfills.postgres.connection import connect, is_pooled
from dagster_backfills.postgres.migrations import apply_migrations
from dagster_backfills.samples.training import generate_training, load_training

PGBOUNCER = shutil.which("pgbouncer", path=f"{os.environ.get('PATH', '')}:/usr/sbin:/usr/local/sbin")
pytestmark = [
    pytest.mark.programs,
    pytest.mark.skipif(PGBOUNCER is None, reason="pgbouncer is not installed"),
]
TABLES = "select count(*) from pg_tables where schemaname = %s"


def _account() -> str:
    """PgBouncer refuses to run as root."""
    return getpass.getuser() if os.getuid() else next(n for n in ("postgres", "nobody") if _known(n))


def _known(name: str) -> bool:
    return any(each.pw_name == name for each in pwd.getpwall())


@contextmanager
def pooler(url: str, folder: Path, *settings: str):
    """The URL of the same database through the test's own PgBouncer."""
    assert PGBOUNCER
    given = conninfo_to_dict(url)
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    folder.mkdir(mode=0o755)
    user = str(given["user"])
    (folder / "users.txt").write_text(f'"{user}" "{given.get("password", "")}"\n')
    lines = [
        "[databases]",
        f"* = host={given['host']} port={given.get('port', 5432)}",
        "[pgbouncer]",
        f"listen_addr = 127.0.0.1\nlisten_port = {port}\nunix_socket_dir =",
        f"auth_type = trust\nauth_file = {folder / 'users.txt'}",
        *settings,
    ]
    ini = folder / "pgbouncer.ini"
    ini.write_text("\n".join(lines) + "\n")
    for path in (folder, *folder.iterdir()):
        shutil.chown(path, _account())
    command = [PGBOUNCER, "-q", str(ini)] if os.getuid() else [PGBOUNCER, "-q", "-u", _account(), str(ini)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as process:
        try:
            while True:
                assert process.poll() is None, process.stdout and process.stdout.read()
                with socket.socket() as probe:
                    if probe.connect_ex(("127.0.0.1", port)) == 0:
                        break
                time.sleep(0.05)
            yield f"postgresql://{user}@127.0.0.1:{port}/{given['dbname']}"
        finally:
            process.terminate()


@pytest.fixture
def reachable(tmp_path_factory):
    """A folder that another account can enter."""
    folder = Path(f"/tmp/pooler-{os.getpid()}-{time.monotonic_ns()}")
    yield folder
    shutil.rmtree(folder, ignore_errors=True)


@pytest.mark.parametrize("ignored", ["", "ignore_startup_parameters = options"])
def test_in_session_mode_everything_works_and_dagsters_tables_are_in_their_schema(
    make_database, reachable, monkeypatch, tmp_path, ignored
):
    direct = make_database(migrated=False)
    with pooler(direct, reachable, "pool_mode = session", ignored) as url:
        monkeypatch.setenv("DATABASE_URL", url)
        monkeypatch.setenv("BACKFILLS_HOME", str(tmp_path))
        apply_migrations(url)
        for name, value in dagster_environment().items():
            monkeypatch.setenv(name, value)
        with connect(url, autocommit=True) as conn:
            assert is_pooled(conn)
            load_training(conn, generate_training(organizations=3, members=12))
        postgres = PostgresResource(url=url)
        resources = {"postgres": postgres, "io_manager": PostgresIOManager(postgres=postgres)}
        with dg.DagsterInstance.get() as instance:
            assert build_job(TRAINING).execute_in_process(instance=instance, resources=resources).success
        assert read_instance(url, ticks=False).problem == ""
        found = {each.check: each for each in doctor_postgres.examine(url)}
    assert found["session"].found == "Connected through a pooler in session mode."
    assert not [each for each in found.values() if each.level is Level.ERROR]
    with psycopg.connect(direct) as conn:
        assert conn.execute(TABLES, ["public"]).fetchone() == (0,)
        assert conn.execute("select count(*) from dagster.runs").fetchone() == (1,)
        records = conn.execute("select count(*) from training.employee_training_video_completions").fetchone()
        members = conn.execute("select count(*) from training.members where not deactivated").fetchone()
        assert records == (members[0] * 5,) and members != (0,)


@pytest.mark.parametrize("mode", ["transaction", "statement"])
@pytest.mark.parametrize("order", ["server_round_robin = 0", "server_round_robin = 1"])
def test_without_session_mode_the_first_command_fails_and_nothing_is_written(
    make_database, reachable, mode, order
):
    direct = make_database(migrated=False)
    with pooler(direct, reachable, f"pool_mode = {mode}", order, "min_pool_size = 4") as url:
        for attempt in (lambda: apply_migrations(url), lambda: BatchedPostgresStorage(url)):
            with pytest.raises(NotUsableError, match="is in transaction or statement mode") as raised:
                attempt()
            assert "session mode" in raised.value.hint and "127.0.0.1" in raised.value.message
        (finding,) = doctor_postgres.examine(url)
        assert (finding.level, finding.advice) == (Level.ERROR, raised.value.hint)
    with psycopg.connect(direct) as conn:
        assert conn.execute("select count(*) from pg_tables where schemaname !~ '^pg_|^info'").fetchone() == (
            0,
        )


def test_a_setting_in_the_url_that_a_pooler_rejects_is_named(database_url, reachable):
    with pooler(database_url, reachable, "pool_mode = session") as url:
        (finding,) = doctor_postgres.examine(f"{url}?options=-cwork_mem%3D1MB")
    assert finding.found.startswith("The pooler at 127.0.0.1:") and finding.found.endswith(
        " does not accept options."
    )
    assert finding.advice == "Leave options out of the URL, or set it for the role: alter role … set …"


def test_a_direct_connection_is_not_mistaken_for_a_pooled_one(database_url):
    with connect(database_url) as conn:
        assert not is_pooled(conn)
    assert [each.found for each in doctor_postgres.examine(database_url) if each.check == "session"] == [
        "Connected directly."
    ]
