"""The embedded Postgres server, used when `DATABASE_URL` is not set. Not here: its files (`placement`).

The first process that needs it starts it. All processes share it, and it runs until `stop`.
"""

import os
import shutil
import signal
import socket
import time
from collections.abc import Mapping
from contextlib import AbstractContextManager
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import quote

from dagster_backfills.errors import NotUsableError
from dagster_backfills.postgres import placement
from dagster_backfills.postgres.launcher import DATABASE, Launcher
from dagster_backfills.postgres.locked_file import locked_file
from dagster_backfills.postgres.url import checked_url
from dagster_backfills.state import state_dir

if TYPE_CHECKING:
    import psutil

# Crash recovery replays up to max_wal_size of changes, which can take minutes on a slow disk.
_START_SECONDS = 600
_STOP_SECONDS = 120


def resolve_database_url(variable: str | None = None) -> str:
    """The URL in `variable` or in `DATABASE_URL`. If the latter is empty, that of the embedded server, once started."""
    name = variable or "DATABASE_URL"
    url = os.environ.get(name, "").strip()
    if url:
        return checked_url(url, name)
    if variable:
        raise NotUsableError(f"{variable} is not set, but a declaration names it as its database's URL.")
    server = EmbeddedServer(state_dir())
    server.start()
    return server.url()


class EmbeddedServer:
    """The Postgres server whose data is in `<state>/postgres`. `settings` override its configuration file."""

    def __init__(self, state: Path, settings: Mapping[str, str] | None = None) -> None:
        self._state = state
        self._settings = dict(settings or {})

    @property
    def home(self) -> Path:
        """The folder of the data and the log. `<state>/postgres` may be a link to it."""
        return (self._state / "postgres").resolve()

    @property
    def data(self) -> Path:
        return self.home / "data"

    @property
    def log(self) -> Path:
        return self.home / "server.log"

    def url(self, database: str = DATABASE) -> str:
        """The server's URL, for psycopg 2 and 3 and SQLAlchemy, whether or not the server is running."""
        host = quote(str(placement.socket_dir(self.home)), safe="/")
        return f"postgresql://postgres@/{quote(database, safe='')}?host={host}&port={placement.PORT}"

    def is_running(self) -> bool:
        """Whether the server accepts connections now."""
        try:
            status = (self.data / "postmaster.pid").read_text().splitlines()[7:8]
        except FileNotFoundError:
            return False
        except PermissionError as error:
            hint = "Run as that user, or set BACKFILLS_HOME or DATABASE_URL."
            raise NotUsableError(f"{self.data} belongs to another user.", hint) from error
        if [word.strip() for word in status] != ["ready"]:
            return False
        with socket.socket(socket.AF_UNIX) as probe:
            address = placement.socket_dir(self.home) / f".s.PGSQL.{placement.PORT}"
            return probe.connect_ex(str(address)) == 0

    def start(self) -> bool:
        """Start the server unless it is running, creating its data first if needed. Returns whether it was started."""
        if self.is_running():
            return False
        with self._locked():
            if self._wait_for_running_server():
                return False
            self._clear_remains()
            account = placement.choose_account(self.data)
            placement.prepare_home(self._state / "postgres", account)
            launcher = Launcher(self.home, account)
            launcher.create_data()
            launcher.start(self._settings, _START_SECONDS)
            return True

    def stop(self) -> bool:
        """Stop the server cleanly, rolling back open transactions. Returns whether it was running."""
        if not self.data.exists():
            return False
        with self._locked():
            postmaster = self._postmaster()
            if postmaster is None:
                self._clear_remains()
                return False
            for how in (signal.SIGINT, signal.SIGQUIT):
                postmaster.send_signal(how)
                deadline = time.monotonic() + _STOP_SECONDS
                while time.monotonic() < deadline:
                    # Not Process.wait(): in a container without an init process, a zombie remains.
                    if not _works_in(postmaster, self.data):
                        return True
                    time.sleep(0.02)
        raise NotUsableError(
            f"Postgres (process {postmaster.pid}) did not stop.", f"See its log, {self.log}."
        )

    def delete(self) -> None:
        """Stop the server and delete all its files."""
        self.stop()
        home, link = self.home, self._state / "postgres"
        shutil.rmtree(placement.socket_dir(home), ignore_errors=True)
        shutil.rmtree(home, ignore_errors=True)
        link.unlink(missing_ok=True)
        (self._state / "postgres.lock").unlink(missing_ok=True)

    def _wait_for_running_server(self) -> bool:
        """Wait while a server process is starting. Returns True once it accepts connections, False if it is gone."""
        deadline = time.monotonic() + _START_SECONDS
        while self._postmaster() is not None:
            if self.is_running():
                return True
            if time.monotonic() > deadline:
                message = f"Postgres in {self.home} has not finished starting in {_START_SECONDS} s."
                raise NotUsableError(message, f"See its log, {self.log}, and try again.")
            time.sleep(0.1)
        return False

    def _postmaster(self) -> "psutil.Process | None":
        """The server process, if it is alive. Checks that its process ID has not been reused."""
        import psutil

        try:
            process = psutil.Process(int((self.data / "postmaster.pid").read_text().split()[0]))
            return process if _works_in(process, self.data) else None
        except (FileNotFoundError, ValueError, IndexError, psutil.NoSuchProcess):
            return None

    def _clear_remains(self) -> None:
        """Stop backends that outlived a killed server, which would block a new one, and delete its PID file."""
        if not self.data.exists():
            return
        import psutil

        orphans = [process for process in psutil.process_iter() if _works_in(process, self.data)]
        for how in (signal.SIGQUIT, signal.SIGKILL):
            for process in orphans:
                if process.is_running():
                    process.send_signal(how)
            _, orphans = psutil.wait_procs(orphans, timeout=10)
        (self.data / "postmaster.pid").unlink(missing_ok=True)

    def _locked(self) -> AbstractContextManager[None]:
        """The lock for starting and stopping the server."""
        return locked_file(self._state / "postgres.lock", _START_SECONDS + _STOP_SECONDS)


def _works_in(process: "psutil.Process", data: Path) -> bool:
    """Whether this is a live Postgres process of that data directory, which is the working directory of each."""
    import psutil

    try:
        return (
            process.name().startswith("postgres")
            and process.status() != psutil.STATUS_ZOMBIE
            and Path(process.cwd()) == data
        )
    except (psutil.NoSuchProcess, psutil.AccessDenied):
        return False
