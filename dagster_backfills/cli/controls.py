"""`backfills pause`, `resume` and `throttle`: whether a backfill writes, how fast, and at what hours."""

from typing import Annotated

import typer

from dagster_backfills.cli.backfills import Name, named
from dagster_backfills.cli.output import say
from dagster_backfills.engine.controls import Control, Setting, change, read
from dagster_backfills.errors import UserError
from dagster_backfills.identity import system_user


def pause(name: Name) -> None:
    """Write nothing more of a backfill, from each of its runs' next batch on, until it is resumed."""
    _set(name, "pause", Setting(paused=True))


def resume(name: Name) -> None:
    """Let a paused backfill go on."""
    _set(name, "resume", Setting(paused=False))


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
    _set(name, "throttle", setting)


def _set(name: str, verb: str, setting: Setting) -> None:
    """Set it, and say what is set now."""
    backfill = named(name, verb)
    with backfill.connect() as conn:
        change(conn, backfill.name, backfill.assets, setting, system_user())
        controls = read(conn, backfill.assets)
        conn.rollback()
    say(*(_described(control) for control in controls))


def _described(control: Control) -> str:
    """What is set, in a sentence."""
    said = ["paused" if control.paused else "not paused"]
    if control.rest_seconds:
        said.append(f"rests {control.rest_seconds:g} s between batches")
    if control.rows_per_second:
        said.append(f"changes {control.rows_per_second:g} rows a second at most")
    if control.window_start is not None and control.window_end is not None:
        hours = f"{control.window_start:%H:%M} to {control.window_end:%H:%M} ({control.zone})"
        said.append(f"writes from {hours}{', which is not now' if control.closed else ''}")
    return f"{control.backfill}: {', '.join(said)}."
