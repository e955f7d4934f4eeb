"""`backfills resume NAME`: a paused backfill goes on where it stopped."""

import typer

from dagster_backfills.cli.backfills import Name
from dagster_backfills.cli.controls import set_controls
from dagster_backfills.engine.controls import Setting

app = typer.Typer()


@app.command()
def resume(name: Name) -> None:
    """Let a paused backfill go on."""
    set_controls(name, "resume", Setting(paused=False))
