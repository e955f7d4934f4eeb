"""The embedded Postgres server, for whoever has no `DATABASE_URL`: found or started, shared, recovered.

Any process may start it and any number may use it; nothing but `stop` ends it. Not here: where its files lie.
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
from dagster_backfills.locked_file import locked_file
from dagster_backfills.postgres import placement
from dagster_backfills.postgres.launcher import DATABASE, Launcher
from dagster_backfills.postgres.url import checked_url
from dagster_backfills.state import state_dir

if TYPE_CHECKING:
    import psutil

# Crash recovery replays up to max_wal_size of changes, which can take minutes on a slow disk.
_START_SECONDS = 600
_STOP_SECONDS = 120


def resolve_database_url(variable: str | None = None) -> str:
    """What a declaration's variable holds, or `DATABASE_URL`; else the embedded server's, started if need be."""
    name = variable or "DATABASE_URL"
    given = os.environ.get(name, "").strip()
    if given:
        return checked_url(given, name)
    if variable:
        raise NotUsableError(f"{variable} is not set, and a declaration names it as its database's URL.")
    server = EmbeddedServer(state_dir())
    server.start()
    return server.url()


class EmbeddedServer:
    """The Postgres server with its data in `<state>/postgres`. `settings` override its configuration file."""

    def __init__(self, state: Path, settings: Mapping[str, str] | None = None) -> None:
        self._state = state
        self._settings = dict(settings or {})

    @property
    def home(self) -> Path:
        """The folder of the data and the log; elsewhere than below `state` where a link there says so."""
        return (self._state / "postgres").resolve()

    @property
    def data(self) -> Path:
        return self.home / "data"

    @property
    def log(self) -> Path:
        return self.home / "server.log"

    def url(self, database: str = DATABASE) -> str:
        """The libpq URL, good for psycopg 2 and 3 and SQLAlchemy, whether or not the server runs."""
        host = quote(str(placement.socket_dir(self.home)), safe="/")
        return f"postgresql://postgres@/{quote(database, safe='')}?host={host}&port={placement.PORT}"

    def is_running(self) -> bool:
        """Whether it accepts connections now."""
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
        """Start it unless it runs, making the data at first. True where this call is what started it."""
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
        """Stop it cleanly. Transactions in progress are rolled back. False where it did not run."""
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
                    # Not Process.wait(): where nobody reaps the orphans of a container, a zombie stays.
                    if not _works_in(postmaster, self.data):
                        return True
                    time.sleep(0.02)
        raise NotUsableError(f"Postgres (process {postmaster.pid}) does not stop.", f"Its log is {self.log}.")

    def delete(self) -> None:
        """Stop it and remove everything that it wrote."""
        self.stop()
        home, link = self.home, self._state / "postgres"
        shutil.rmtree(placement.socket_dir(home), ignore_errors=True)
        shutil.rmtree(home, ignore_errors=True)
        link.unlink(missing_ok=True)
        (self._state / "postgres.lock").unlink(missing_ok=True)

    def _wait_for_running_server(self) -> bool:
        """True once it accepts connections; false when no server process is there (any more)."""
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
        """The server process, if it lives. A process id that is someone else's by now does not count."""
        import psutil

        try:
            process = psutil.Process(int((self.data / "postmaster.pid").read_text().split()[0]))
            return process if _works_in(process, self.data) else None
        except (FileNotFoundError, ValueError, IndexError, psutil.NoSuchProcess):
            return None

    def _clear_remains(self) -> None:
        """End backends that outlived a killed server and would keep a new one out; drop its pid file."""
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
        """One process at a time starts or stops it."""
        return locked_file(self._state / "postgres.lock", _START_SECONDS + _STOP_SECONDS)


def _works_in(process: "psutil.Process", data: Path) -> bool:
    """Whether this is a living Postgres process of that data: each has it as its working directory."""
    import psutil

    try:
        return (
            process.name().startswith("postgres")
            and process.status() != psutil.STATUS_ZOMBIE
            and Path(process.cwd()) == data
        )
    except (psutil.NoSuchProcess, psutil.AccessDenied):
        return False
