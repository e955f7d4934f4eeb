"""`backfills run NAME`: runs a backfill in a Dagster run and waits for it."""

from collections.abc import Sequence
from typing import Annotated, Any

import typer

from dagster_backfills.cli.backfills import Declared, Name, Named, Partitions, Whiches, named
from dagster_backfills.cli.errors import FAILURES, OK
from dagster_backfills.cli.output import Json, Yes, confirm, print_json, print_table, say
from dagster_backfills.cli.overview import summary
from dagster_backfills.engine.controls import read
from dagster_backfills.engine.declared.validation import named_function
from dagster_backfills.engine.partition_status import needing_backfill
from dagster_backfills.engine.results import RESULTS
from dagster_backfills.engine.selection import Which, which_of
from dagster_backfills.names import counted
from dagster_backfills.redact import redact


def run_(
    name: Name,
    partition: Partitions = None,
    which: Whiches = None,
    limit: Annotated[
        int | None, typer.Option("--limit", "-n", min=1, help="Maximum number of partitions to backfill.")
    ] = None,
    yes: Yes = False,
    json: Json = False,
) -> None:
    """Backfill the missing, stale and failed partitions, or the ones you name. Exits with 1 if something fails."""
    chosen, backfill = which_of(which, partition), named(name, "run")
    with backfill.connect() as conn:
        keys = backfill.choose(conn, chosen, partition or [])
        statuses = backfill.partition_statuses(conn)
        held = [control.waits for control in read(conn, backfill.assets) if control.waits]
    if limit:
        keys = [each.partition for each in needing_backfill(statuses) if each.partition in keys][:limit]
    if not json:
        say(f"Before: {summary(backfill.name, statuses)}")
    if not keys:
        say("Nothing to do: no partition needs a backfill.")
        if json:
            print_json({"runs": [], "partitions": 0, "tables": [], "failures": [], "report": {}})
        return
    say(*(f"The run will wait: {why}." for why in held))
    confirm(f"Write {counted(len(keys), 'partition')} of {backfill.name}?", yes)
    by_name = bool(partition or limit) or not isinstance(backfill, Declared)
    runs = backfill.launch(Which.named if by_name else chosen, keys if by_name else [])
    failures = _show_result(backfill, [run for run, _ in runs], len(keys), json)
    raise typer.Exit(max([*(code for _, code in runs), FAILURES if failures else OK]))


def _show_result(backfill: Named, runs: Sequence[str], partitions: int, json: bool) -> list[dict[str, Any]]:
    """Print the result of the runs; return what could not be written."""
    with backfill.connect() as conn:
        tables = RESULTS.tables.dicts(conn, run_ids=runs)
        failures = RESULTS.failures.dicts(conn, run_ids=runs)
        report = _report(backfill, conn, runs)
        can_be_undone = RESULTS.can_be_undone(conn, run_ids=runs)
        statuses = backfill.partition_statuses(conn)
    if json:
        print_json(
            {"runs": runs, "partitions": partitions, "tables": tables, "failures": failures, "report": report}
        )
        return failures
    if tables:
        print_table(list(tables[0]), [tuple(each.values()) for each in tables], ids=["table"])
    if report:
        say(", ".join(f"{value:,} {name.replace('_', ' ')}" for name, value in report.items()) + ".")
    say(f"After: {summary(backfill.name, statuses)}")
    if isinstance(backfill, Declared):
        say(*(f"To undo: backfills undo {run}" for run in runs if can_be_undone))
    say(*first_of(failures, backfill.name))
    return failures


def first_of(failures: Sequence[dict[str, Any]], name: str) -> list[str]:
    """The first failure with its cause, and the command that shows the rest."""
    if not failures:
        return []
    first = failures[0]
    what = " ".join(filter(None, (first["asset"], first["partition"], first["unit"])))
    return [
        f"{len(failures):,} could not be written. The first: {what}: {redact(first['message'])}",
        f"Show all: backfills failures {name}",
    ]


def _report(backfill: Named, conn: Any, runs: Sequence[str]) -> dict[str, float]:
    """The numbers that the declaration's `report` function returns."""
    path = backfill.backfill.declared.report if isinstance(backfill, Declared) else None
    report = named_function(path, "report")(conn, runs[0]) if path else {}
    return {name: value for name, value in report.items() if isinstance(value, int | float)}
