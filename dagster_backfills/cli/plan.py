"""`backfills plan NAME`: what a run would do. Writes nothing and sends no notifications."""

from collections.abc import Sequence
from typing import Annotated, Any

import typer

from dagster_backfills.cli.backfills import Name, Partitions, Whiches, named
from dagster_backfills.cli.errors import FAILURES
from dagster_backfills.cli.output import Json, Limit, Wide, duration, print_json, print_table, say
from dagster_backfills.dagster.plan_report import COUNTED, by_partition, by_table, examples, failures
from dagster_backfills.engine.plan import Report
from dagster_backfills.engine.selection import which_of
from dagster_backfills.names import counted


def plan(
    name: Name,
    partition: Partitions = None,
    which: Whiches = None,
    limit: Limit = None,
    wide: Wide = False,
    json: Json = False,
    fail_on_changes: Annotated[
        bool, typer.Option("--fail-on-changes", help="Exit with 1 if a run would change or fail something.")
    ] = False,
) -> None:
    """Show which rows a run would insert, update, delete or leave, what would fail, and the estimated duration."""
    chosen, backfill = which_of(which, partition), named(name, "plan")
    keys = []
    if partition:
        with backfill.connect() as conn:
            keys = backfill.choose(conn, chosen, partition)
    report = backfill.plan(chosen, keys, say)
    if json:
        print_json(report.as_json())
    else:
        show(report, limit=limit, wide=wide)
    if fail_on_changes and (report.changes or report.failures):
        raise typer.Exit(FAILURES)


def show(report: Report, kept: str = "unchanged", limit: int | None = None, wide: bool = False) -> None:
    """Print the report as tables. `kept` is the header of the column `unchanged`."""
    headers = [kept if name == "unchanged" else name.replace("_", " ") for name in COUNTED]
    if not report.assets and not report.failures:
        say("Nothing to do.")
        return
    _table(["table", *headers], by_table(report), "", limit, wide)
    _table(["table", "partition", *headers], by_partition(report), "by partition", limit, wide)
    _table(["table", "partition", "unit", "message"], failures(report), "would fail", limit, wide)
    _table(["change", "table", "partition", "before", "after"], examples(report), "examples", limit, wide)
    estimate = report.estimate
    basis = counted(estimate.runs, "earlier run") if estimate.runs else "this plan's own duration"
    say(
        f"Estimated duration: {duration(estimate.seconds)} ({duration(estimate.low)} to {duration(estimate.high)}), "
        f"based on {basis}."
    )


def _table(
    headers: Sequence[str], rows: Sequence[Sequence[Any]], title: str, limit: int | None, wide: bool
) -> None:
    if rows:
        print_table(headers, rows, title, limit=limit, ids=["partition", "unit"], wide=wide)
