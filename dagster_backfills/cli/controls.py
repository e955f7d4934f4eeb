"""What `pause`, `resume` and `throttle` share. Not here: what is set (`engine/controls`)."""

from dagster_backfills.cli.backfills import named
from dagster_backfills.cli.output import say
from dagster_backfills.engine.controls import Control, Setting, change, read
from dagster_backfills.identity import system_user


def set_controls(name: str, verb: str, setting: Setting) -> None:
    """Set it, and say what is set now."""
    backfill = named(name, verb)
    with backfill.connect() as conn:
        change(conn, backfill.name, backfill.assets, setting, system_user())
        controls = read(conn, backfill.assets)
        conn.rollback()
    say(*(describe(control) for control in controls))


def describe(control: Control) -> str:
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
