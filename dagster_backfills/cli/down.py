"""`backfills down`: stops what `backfills up` started, and the embedded Postgres."""

import os
import signal
import time

import typer

from dagster_backfills.cli.output import say
from dagster_backfills.cli.up import lock_path
from dagster_backfills.errors import NotUsableError
from dagster_backfills.locked_file import lock_holder
from dagster_backfills.postgres.embedded import EmbeddedServer
from dagster_backfills.state import state_dir

app = typer.Typer()
_PATIENCE = 120


@app.command()
def down() -> None:
    """Stop what `up` started, and the embedded Postgres. What it holds is kept.

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
    deadline = time.monotonic() + _PATIENCE
    while lock_holder(lock_path()) == holder:
        if time.monotonic() > deadline:
            raise NotUsableError(
                f"`backfills up` (process {holder}) does not end.", "Kill it, then try again."
            )
        time.sleep(0.1)
