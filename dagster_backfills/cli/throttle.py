"""`backfills throttle NAME`: how fast a backfill may go, and at what hours."""

from typing import Annotated

import typer

from dagster_backfills.cli.backfills import Name
from dagster_backfills.cli.controls import set_controls
from dagster_backfills.engine.controls import Setting
from dagster_backfills.errors import UserError

app = typer.Typer()


@app.command()
def throttle(
    name: Name,
    rest: Annotated[float | None, typer.Option(min=0, help="Seconds between two batches; 0: none.")] = None,
    rows_per_second: Annotated[
        float | None, typer.Option(min=0, help="Rows changed a second, on average; 0: as fast as it goes.")
    ] = None,
    window: Annotated[
        str | None, typer.Option(help="Hours in which it may write, 22:00-05:00; none: all.")
    ] = None,
    zone: Annotated[str | None, typer.Option(help="The window's time zone, Europe/Berlin say.")] = None,
) -> None:
    """Set how fast a backfill may go and when, from each of its runs' next batch on."""
    setting = Setting(rest_seconds=rest, rows_per_second=rows_per_second, window=window, zone=zone)
    if setting == Setting():
        raise UserError("Nothing is to be set.", "Give --rest, --rows-per-second, --window or --zone.")
    set_controls(name, "throttle", setting)
