"""`backfills pause`, `resume`, `throttle` and `cancel`. None of them reverts anything: committed batches stay."""

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
    """Pause a backfill until it is resumed. Running runs stop before their next batch."""
    _set(name, "pause", Setting(paused=True))


def resume(name: Name) -> None:
    """Resume a paused backfill."""
    _set(name, "resume", Setting(paused=False))


def throttle(
    name: Name,
    rest: Annotated[float | None, typer.Option(min=0, help="Seconds between batches. 0: no wait.")] = None,
    rows_per_second: Annotated[
        float | None, typer.Option(min=0, help="Maximum average rows changed per second. 0: no limit.")
    ] = None,
    window: Annotated[
        str | None, typer.Option(help="Hours in which it may write, such as 22:00-05:00. none: any hour.")
    ] = None,
    zone: Annotated[str | None, typer.Option(help="Time zone of the window, such as Europe/Berlin.")] = None,
) -> None:
    """Limit how fast a backfill writes and when. Takes effect before each run's next batch."""
    setting = Setting(rest_seconds=rest, rows_per_second=rows_per_second, window=window, zone=zone)
    if setting == Setting():
        raise UserError("There is nothing to set.", "Use --rest, --rows-per-second, --window or --zone.")
    _set(name, "throttle", setting)


def _set(name: str, verb: str, setting: Setting) -> None:
    """Save the setting and print the settings now in force."""
    backfill = named(name, verb)
    with backfill.connect() as conn:
        change(conn, backfill.name, backfill.assets, setting, system_user())
        controls = read(conn, backfill.assets)
        conn.rollback()
    say(*(_described(control) for control in controls))


def _described(control: Control) -> str:
    """The settings in a sentence."""
    parts = ["paused" if control.paused else "not paused"]
    if control.rest_seconds:
        parts.append(f"waits {control.rest_seconds:g} s between batches")
    if control.rows_per_second:
        parts.append(f"changes at most {control.rows_per_second:g} rows per second")
    if control.window_start is not None and control.window_end is not None:
        hours = f"{control.window_start:%H:%M} to {control.window_end:%H:%M} ({control.zone})"
        parts.append(f"writes only from {hours}{', which is not now' if control.closed else ''}")
    return f"{control.backfill}: {', '.join(parts)}."


def cancel(name: Name, yes: Yes = False, json: Json = False) -> None:
    """Cancel a backfill's queued and running runs, and its Dagster backfills. Committed batches stay."""
    backfill = named(name, "cancel")
    with open_instance() as instance, backfill.connect() as conn:
        # Runs of other jobs are recognized by the tables that they write.
        writing = {row[0] for row in RESULTS.unfinished(conn, assets=list(backfill.assets))}
        conn.rollback()
        backfills, runs = _unfinished(instance, backfill, writing)
        ids = [*(each.backfill_id for each in backfills), *(run.run_id for run in runs)]
        if ids:
            of = " and ".join(
                counted(len(each), noun) for each, noun in ((runs, "run"), (backfills, "backfill")) if each
            )
            confirm(f"Cancel {of} of {backfill.name}?", yes)
            domains = audit.domains_of(list(backfill.assets))
            audit.record(conn, audit.Entry(system_user(), "cancel", backfill.name, domains, "done", ids))
            conn.commit()
        # First the backfills: the daemon would launch more runs.
        for each in backfills:
            instance.update_backfill(each.with_status(type(each.status)["CANCELING"]))
        for run in runs:
            instance.run_coordinator.cancel_run(run.run_id)
    if json:
        print_json(
            {"backfills": [each.backfill_id for each in backfills], "runs": [run.run_id for run in runs]}
        )
    elif not ids:
        say(f"{backfill.name} has no queued or running runs.")
    else:
        say(
            *(f"Backfill {each.backfill_id} will launch no more runs." for each in backfills),
            *(f"Cancelling run {run.run_id}. Committed batches stay." for run in runs),
        )


def _unfinished(
    instance: dg.DagsterInstance, backfill: Named, writing: Collection[str]
) -> tuple[list[Any], list[Any]]:
    """The backfill's unfinished Dagster backfills and runs."""

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
