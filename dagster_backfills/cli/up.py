"""`backfills up` and `down`: Postgres, the Dagster UI and the daemon, in the foreground until stopped."""

import os
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from contextlib import nullcontext, suppress
from pathlib import Path
from typing import Annotated

import typer

from dagster_backfills.cli.child import end_session_of, interrupt_child, start_child
from dagster_backfills.cli.database import running_postgres
from dagster_backfills.cli.output import say
from dagster_backfills.errors import NotUsableError, UserError
from dagster_backfills.instance.dagster_home import dagster_environment
from dagster_backfills.postgres.embedded import EmbeddedServer
from dagster_backfills.postgres.locked_file import HeldElsewhereError, lock_holder, locked_file
from dagster_backfills.postgres.migrations import apply_migrations
from dagster_backfills.state import project_file, state_dir

Verbose = Annotated[bool, typer.Option("--verbose", "-v", help="Show the logs of UI, daemon and runs.")]
_DAGSTER_STOP_SECONDS = 60  # for Dagster to end its runs and itself
_UP_STOP_SECONDS = 120  # for `up` to end, which includes the above


def up(
    port: Annotated[int, typer.Option(help="Port of the Dagster UI.")] = 3000,
    host: Annotated[
        str, typer.Option(help="Address of the Dagster UI. Only this machine is let in.")
    ] = "127.0.0.1",
    verbose: Verbose = False,
) -> None:
    """Start Postgres (if embedded), the Dagster UI and the Dagster daemon, and run them until Ctrl-C."""
    require_not_running()
    require_free(host, port)
    try:
        # `down` holds the lock for a moment while it checks for a holder.
        with locked_file(lock_path(), patience=1), running_postgres():
            environment = os.environ | dagster_environment()
            apply_migrations(environment["DATABASE_URL"])
            run_dagster(environment, host, port, verbose)
    except HeldElsewhereError:
        require_not_running()
        raise


def down() -> None:
    """Stop what `up` started, and the embedded Postgres server. Its data is kept.

    A server of your own, named by DATABASE_URL, is never touched.
    """
    holder = lock_holder(lock_path())
    if holder is not None:
        os.kill(holder, signal.SIGTERM)
        _wait_for_end_of(holder)
        say("Stopped Dagster.")
    server = EmbeddedServer(state_dir())
    stopped = server.stop()
    say(
        f"Stopped Postgres; its data stays in {server.home}."
        if stopped
        else "No embedded Postgres was running."
    )


def _wait_for_end_of(holder: int) -> None:
    deadline = time.monotonic() + _UP_STOP_SECONDS
    while lock_holder(lock_path()) == holder:
        if time.monotonic() > deadline:
            raise NotUsableError(
                f"`backfills up` (process {holder}) does not stop.", "Kill it, then try again."
            )
        time.sleep(0.1)


def require_not_running() -> None:
    """Raise UserError with the UI's address if another `backfills up` is running."""
    holder = lock_holder(lock_path())
    if holder is not None:
        address = _address_file().read_text() if _address_file().exists() else "still starting"
        message = f"`backfills up` is already running (process {holder}): {address}."
        raise UserError(message, "Use it, or stop it: backfills down")


def lock_path() -> Path:
    """The lock file that a running `backfills up` holds."""
    return state_dir() / "up.lock"


def _address_file() -> Path:
    """The file with the UI's address of a running `backfills up`."""
    return state_dir() / "up.address"


def run_dagster(environment: dict[str, str], host: str, port: int, verbose: bool = False) -> None:
    """Run the UI and the daemon until interrupted. They and their runs log to a file, or here if `verbose`."""
    command = [sys.executable, "-m", "dagster_backfills.instance.door.dev", "dev"]
    command += ["--workspace", str(project_file("workspace.yaml"))]
    log = state_dir() / "up.log"
    with nullcontext() if verbose else log.open("w") as output:
        dagster = start_child(
            [*command, "--host", host, "--port", str(port), "--log-level", "warning"],
            env={"PYTHONWARNINGS": "ignore"} | environment,
            cwd=environment["DAGSTER_HOME"],
            stdout=output,
            stderr=output,
        )
    try:
        _announce(dagster, host, port)
        if not verbose:
            say(f"Log: {log}. To show it here: --verbose")
        dagster.wait()
        raise NotUsableError(
            f"Dagster ended unexpectedly (exit code {dagster.returncode}).",
            "See its messages above." if verbose else f"See its messages in {log}.",
        )
    except KeyboardInterrupt:
        say("Stopping …")
    finally:
        _address_file().unlink(missing_ok=True)
        _end(dagster)


def _announce(dagster: subprocess.Popen[bytes], host: str, port: int) -> None:
    """Wait until the UI responds and print its address."""
    address = f"http://{'127.0.0.1' if host == '0.0.0.0' else host}:{port}"
    while dagster.poll() is None:
        with suppress(urllib.error.URLError, ConnectionError, TimeoutError):
            urllib.request.urlopen(f"{address}/server_info", timeout=5).close()
            _address_file().write_text(address)
            say(f"Dagster is running at {address}. Press Ctrl-C to stop.")
            return
        time.sleep(0.3)


def _end(dagster: subprocess.Popen[bytes]) -> None:
    """Stop Dagster and every process of its session."""
    # Ignore a second Ctrl-C, which would leave processes behind.
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    interrupt_child(dagster, _DAGSTER_STOP_SECONDS)
    end_session_of(dagster, signal.SIGTERM, signal.SIGKILL)


def require_free(host: str, port: int) -> None:
    """Raise UserError if the port is in use or not allowed."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError as error:
            hint = f"Choose another: --port {port + 1}"
            raise UserError(f"Port {port} of {host} can't be used: {error.strerror}.", hint) from error
