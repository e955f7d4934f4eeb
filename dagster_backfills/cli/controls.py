"""`backfills pause`, `resume`, `throttle` and `cancel`: whether a backfill writes, how fast, and at what hours.

None of them takes anything back: what is committed stays.
"""

from collections.abc import Collection
from typing import Annotated, Any

import dagster as dg
import typer

from dagster_backfills.cli.backfills import Name, Named, named
from dagster_backfills.cli.output import Json, Yes, confirm, print_json, say
from dagster_backfills.dagster.automation import UNFINISHED
from dagster_backfills.engine import audit
from dagster_backfills.engine.controls import Control, Setting, change, read
from dagster_backfills.engine.results import RESULTS
from dagster_backfills.errors import UserError
from dagster_backfills.identity import system_user
from dagster_backfills.instance.launching import open_instance
from dagster_backfills.names import counted


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


def cancel(name: Name, yes: Yes = False, json: Json = False) -> None:
    """Stop the runs of a backfill, queued or at work, and Dagster's backfills of it. What is committed stays."""
    backfill = named(name, "cancel")
    with open_instance() as instance, backfill.connect() as conn:
        # Runs put together in some other way are known by what they write.
        writing = {row[0] for row in RESULTS.unfinished(conn, assets=list(backfill.assets))}
        conn.rollback()
        backfills, runs = _found(instance, backfill, writing)
        ids = [*(each.backfill_id for each in backfills), *(run.run_id for run in runs)]
        if ids:
            of = " and ".join(
                counted(len(each), noun) for each, noun in ((runs, "run"), (backfills, "backfill")) if each
            )
            confirm(f"Stop {of} of {backfill.name}?", yes)
            domains = audit.domains_of(list(backfill.assets))
            audit.record(conn, audit.Entry(system_user(), "cancel", backfill.name, domains, "done", ids))
            conn.commit()
        # The daemon would launch more.
        for each in backfills:
            instance.update_backfill(each.with_status(type(each.status)["CANCELING"]))
        for run in runs:
            instance.run_coordinator.cancel_run(run.run_id)
    if json:
        print_json(
            {"backfills": [each.backfill_id for each in backfills], "runs": [run.run_id for run in runs]}
        )
    elif not ids:
        say(f"No run of {backfill.name} is at work or waits.")
    else:
        say(
            *(f"Backfill {each.backfill_id} launches nothing more." for each in backfills),
            *(f"Run {run.run_id} is told to stop; what it committed stays." for run in runs),
        )


def _found(
    instance: dg.DagsterInstance, backfill: Named, writing: Collection[str]
) -> tuple[list[Any], list[Any]]:
    """Dagster's backfills of it that have not ended, and its runs."""

    def is_chosen(each: Any) -> bool:
        chosen = {key.to_user_string() for key in each.asset_selection or ()}
        return not chosen.isdisjoint(backfill.assets)

    backfills = [
        each for each in instance.get_backfills() if each.status.name == "REQUESTED" and is_chosen(each)
    ]
    runs = [
        run
        for run in instance.get_runs(dg.RunsFilter(statuses=UNFINISHED))
        if run.job_name == backfill.job or run.run_id in writing or is_chosen(run)
    ]
    return backfills, runs
