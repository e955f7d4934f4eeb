"""The real stack. Each part is a process that may be killed: Postgres, NATS, code server, daemon, runs, workers.

A thread restarts what ended, as a supervisor (systemd, Docker) does in production.
Not here: faults (`faults.py`), and the invariants afterwards (`domains.py`).
"""

import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
import uuid
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

import psutil
import psycopg
from psycopg import sql

from dagster_backfills.instance.dagster_home import with_search_path
from dagster_backfills.postgres.embedded import EmbeddedServer
from dagster_backfills_tests.chaos.clock import Clock, remove_remains
from dagster_backfills_tests.domains.kintell.test_outbox import PROGRAM as NATS_PROGRAM
from dagster_backfills_tests.domains.kintell.test_outbox import Nats
from dagster_backfills_tests.haste import hurried
from dagster_backfills_tests.programs import Program, start_server

ROOT = Path(__file__).resolve().parents[2]
BIN = Path(sys.executable).parent
MODULE = "dagster_backfills.definitions"
VOLUME_MB = 1500
# The instance's own settings with shorter intervals, because a storm lasts a minute and not a night.
_HASTE = {
    "start_timeout_seconds: 900": "start_timeout_seconds: 240",
    "poll_interval_seconds: 30": "poll_interval_seconds: 5",
    "free_slots_after_run_end_seconds: 60": "free_slots_after_run_end_seconds: 5",
    "max_concurrent_runs: 6": "max_concurrent_runs: 3",
}
_QUIET_POSTGRES = {
    "fsync": "off",
    "shared_buffers": "128MB",
    "max_connections": "200",
    "max_wal_size": "256MB",
}


class Volume:
    """The data directory's folder: a separate file system if this machine allows one."""

    def __init__(self, state: Path) -> None:
        self.path = state / "postgres"
        self._ballast = self.path / "ballast"
        self.path.mkdir(parents=True)
        command = ["mount", "-t", "tmpfs", "-o", f"size={VOLUME_MB}m,mode=755", "tmpfs", str(self.path)]
        self.is_own = (
            shutil.which("mount") is not None
            and subprocess.run(command, check=False, capture_output=True).returncode == 0
        )

    def fill(self) -> None:
        """Fills the volume completely."""
        with suppress(OSError), self._ballast.open("wb") as ballast:
            while True:
                ballast.write(bytes(1 << 20))
                ballast.flush()

    def empty(self) -> None:
        self._ballast.unlink(missing_ok=True)

    def remove(self) -> None:
        if self.is_own:
            subprocess.run(["umount", "-l", str(self.path)], check=False, capture_output=True)


class Postgres:
    """One server for all storms. Each storm has its own database."""

    def __init__(self, state: Path) -> None:
        state.mkdir(parents=True)
        for folder in (state, state.parent):  # if this user is root, Postgres runs as another user
            folder.chmod(0o755)
        self.volume = Volume(state)
        self.server = EmbeddedServer(state, _QUIET_POSTGRES)

    def url(self, database: str) -> str:
        return self.server.url(database)

    def start(self) -> None:
        self.server.start()

    def stop(self, how: signal.Signals) -> None:
        """Shuts down: SIGINT is fast, SIGQUIT immediate, like a crash. Returns when the server is down."""
        postmaster = psutil.Process(int((self.server.data / "postmaster.pid").read_text().split()[0]))
        postmaster.send_signal(how)
        with suppress(psutil.NoSuchProcess):
            while postmaster.is_running() and postmaster.status() != psutil.STATUS_ZOMBIE:
                time.sleep(0.05)

    def create(self, database: str, template: str) -> str:
        with psycopg.connect(self.url("postgres"), autocommit=True) as conn:
            names = sql.Identifier(database), sql.Identifier(template)
            conn.execute(sql.SQL("create database {} template {}").format(*names))
        return self.url(database)

    def drop(self, database: str) -> None:
        with psycopg.connect(self.url("postgres"), autocommit=True) as conn:
            conn.execute(sql.SQL("drop database if exists {} with (force)").format(sql.Identifier(database)))

    def delete(self) -> None:
        self.volume.empty()
        with suppress(Exception):
            self.server.stop()
        self.volume.remove()


Start = Callable[[list[str], Path, Mapping[str, str], Path], "subprocess.Popen[bytes] | Program"]


def spawn(command: list[str], log: Path, env: Mapping[str, str], cwd: Path) -> subprocess.Popen[bytes]:
    """Start a new interpreter, as a supervisor does. A clock that can be set needs one."""
    with log.open("ab") as output:
        return subprocess.Popen(
            command, env=dict(env), cwd=cwd, stdin=subprocess.DEVNULL, stdout=output, stderr=output,
            start_new_session=True,
        )  # fmt: skip


@dataclass
class Service:
    """A process that is restarted when it ends, until `stop` is called."""

    name: str
    command: list[str]
    env: Mapping[str, str]
    log: Path
    start: Start
    starts: int = 0
    process: subprocess.Popen[bytes] | Program | None = None
    wanted: bool = True

    def tend(self) -> None:
        if self.wanted and (self.process is None or self.process.poll() is not None):
            self.process = self.start(self.command, self.log, self.env, ROOT)
            self.starts += 1

    def kill(self) -> int | None:
        if self.process is not None and self.process.poll() is None:
            self.process.kill()
            self.process.wait()
            return self.process.pid
        return None

    def stop(self) -> None:
        """Stops it for good, with all its child processes."""
        self.wanted = False
        if self.process is None:
            return
        children = []
        with suppress(psutil.NoSuchProcess):
            children = psutil.Process(self.process.pid).children(recursive=True)
        with suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        for child in children:
            with suppress(psutil.NoSuchProcess):
                child.kill()
        self.process.wait()


@dataclass
class Stack:
    """All processes of one storm."""

    postgres: Postgres
    database: str
    home: Path
    env: dict[str, str]
    nats: Nats | None
    clock: Clock | None = None  # of everything except Postgres and NATS; None if it can't be set
    forked: bool = False  # whether its programs and runs are forked
    services: dict[str, Service] = field(default_factory=dict)
    _done: threading.Event = field(default_factory=threading.Event)

    @property
    def url(self) -> str:
        return self.postgres.url(self.database)

    def connect(self) -> psycopg.Connection:
        return psycopg.connect(self.url, autocommit=True, connect_timeout=5)

    def add(self, name: str, command: list[str]) -> Service:
        start = start_server if self.forked else spawn
        service = Service(name, command, self.env, self.home / f"{name}.log", start)
        service.tend()
        self.services[name] = service
        return service

    def set_clock(self, offset: int) -> None:
        """Sets the clock. If it is set back, restarts the daemon, which would wait that long (`backfills doctor`)."""
        assert self.clock is not None
        back = offset < self.clock.offset
        self.clock.set(offset)
        if back:
            self.services["daemon"].kill()

    def runs(self) -> list[psutil.Process]:
        """Processes that execute a run: children of a code server, including one that is gone."""
        if self.forked:
            code_server = self.services["code_server"].process
            assert code_server
            with suppress(psutil.NoSuchProcess):
                return [run for each in psutil.Process(code_server.pid).children() for run in each.children()]
            return []
        found = []
        for process in psutil.process_iter(["cmdline", "pid"]):
            command = process.info["cmdline"] or []
            if "--multiprocessing-fork" in command or "execute_run" in command:
                with suppress(psutil.Error):
                    if process.environ().get("DAGSTER_HOME") == str(self.home):
                        found.append(process)
        return found

    def job_workers(self) -> list[psutil.Process]:
        """Runs that hold background jobs, according to the claims in the queue."""
        with suppress(psycopg.Error), self.connect() as conn:
            pids = run_pids(
                conn,
                "select replace(claimed_by, 'run ', '') from jobs.background_jobs where status = 'processing'",
            )
            return [process for process in self.runs() if process.pid in pids.values()]
        return []

    def backfills(self, *arguments: str, timeout: float = 300) -> subprocess.CompletedProcess[str]:
        """The command line, as an operator uses it."""
        return subprocess.run(
            [str(BIN / "backfills"), *arguments], env=self.env, cwd=ROOT, capture_output=True, text=True,
            check=False, timeout=timeout,
        )  # fmt: skip

    def _tend(self) -> None:
        while not self._done.wait(0.5):
            for service in list(self.services.values()):
                service.tend()


def run_pids(conn: psycopg.Connection, runs: str) -> dict[str, int]:
    """The process ID of each run that the query `runs` returns, from the run's own log."""
    rows = conn.execute(
        "select run_id, substring(event from 'pid: ([0-9]+)')::int from dagster.event_logs"
        " where run_id = any(%s) and event like '%%Started process for run (pid: %%'",
        [[row[0] for row in conn.execute(runs)]],
    )
    return dict(rows.fetchall())


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def environment(url: str, home: Path) -> dict[str, str]:
    """Environment variables of every process of the stack."""
    ours = {
        "DATABASE_URL": url,
        "DAGSTER_POSTGRES_URL": with_search_path(url, "dagster"),
        "DAGSTER_HOME": str(home),
        "BACKFILLS_HOME": str(home / "state"),
        "KINTELL_INBOX": str(home / "inbox"),
        "SCORING_CATCH_UP_DAYS": "2",
        "JOBS_SOP_ENGINE": "embedded",
        "PYTHONWARNINGS": "ignore",
    }
    return {**os.environ, **ours}


@contextmanager
def running_stack(
    postgres: Postgres, database: str, folder: Path, with_clock: bool = False, forked: bool = False
) -> Iterator[Stack]:
    """Starts the stack on a database, and stops it at the end.

    with_clock: its clock can be set. forked: its programs and runs are forked, and its code server is not killed.
    """
    home = folder / f"home_{uuid.uuid4().hex[:8]}"
    (home / "inbox").mkdir(parents=True)
    (home / "dagster.yaml").write_text(hurried((ROOT / "dagster.yaml").read_text(), _HASTE))
    env = environment(postgres.url(database), home)
    nats = None
    if NATS_PROGRAM:
        nats = Nats(home / "jetstream")
        nats.start()
        env["KINTELL_NATS_URL"] = nats.url
    clock = Clock(home / "clock") if with_clock else None
    if clock:
        env |= clock.environment
    stack = Stack(postgres, database, home, env, nats, clock, forked)
    port = free_port()
    (home / "workspace.yaml").write_text(
        f"load_from:\n  - grpc_server: {{host: 127.0.0.1, port: {port}, location_name: {MODULE}}}\n"
    )
    tender = threading.Thread(target=stack._tend, daemon=True)
    try:
        program = "dagster_backfills_tests.code_server" if forked else "dagster"
        code = [
            sys.executable,
            "-m",
            program,
            "api",
            "grpc",
            "-m",
            MODULE,
            "-h",
            "127.0.0.1",
            "-p",
            str(port),
        ]
        stack.add("code_server", code)
        stack.add("daemon", daemon_command(home))
        tender.start()
        yield stack
    finally:
        stack._done.set()
        if tender.is_alive():
            tender.join()
        for service in stack.services.values():
            service.stop()
        for process in stack.runs():
            with suppress(psutil.NoSuchProcess):
                process.kill()
        if nats:
            nats.stop()
        if clock:
            remove_remains()


def daemon_command(home: Path) -> list[str]:
    return [str(BIN / "dagster-daemon"), "run", "-w", str(home / "workspace.yaml")]
