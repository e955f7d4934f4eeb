"""`backfills pause NAME`: no batch of it is written from now on; what is committed stays."""

import typer

from dagster_backfills.cli.backfills import Name
from dagster_backfills.cli.controls import set_controls
from dagster_backfills.engine.controls import Setting

app = typer.Typer()


@app.command()
def pause(name: Name) -> None:
    """Write nothing more of a backfill, from each of its runs' next batch on, until it is resumed."""
    set_controls(name, "pause", Setting(paused=True))
