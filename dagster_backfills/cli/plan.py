"""`backfills plan NAME`: what a run of a backfill would do. Nothing is written, nobody is notified."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import dagster as dg
import typer

from dagster_backfills.cli.errors import FAILURES
from dagster_backfills.cli.output import duration, print_json, print_table, say
from dagster_backfills.components.building import Backfill
from dagster_backfills.components.loading import backfill_named
from dagster_backfills.components.planning import plan_backfill
from dagster_backfills.dagster.plan_report import COUNTED, by_partition, by_table, examples, failures
from dagster_backfills.dagster.resource import PostgresResource
from dagster_backfills.engine.plan import Report
from dagster_backfills.engine.selection import Which
from dagster_backfills.errors import UserError
from dagster_backfills.instance.dagster_home import dagster_environment
from dagster_backfills.postgres.migrations import require_migrations

app = typer.Typer()


@app.command()
def plan(
    name: Annotated[str, typer.Argument(help="The backfill: training_completions, progress_stats, …")],
    partition: Annotated[
        list[str] | None, typer.Option("--partition", "-p", help="Only this partition; may be repeated.")
    ] = None,
    which: Annotated[
        Which | None, typer.Option(help="Which partitions; by default those that need it.")
    ] = None,
    json: Annotated[
        bool, typer.Option("--json", help="Print JSON on stdout and nothing else there.")
    ] = False,
    fail_on_changes: Annotated[
        bool, typer.Option("--fail-on-changes", help="End with 1 where a run would change or fail something.")
    ] = False,
) -> None:
    """What a run would insert, update, delete and leave, what would fail, and how long it would take."""
    if partition and which not in (None, Which.named):
        raise UserError("--partition and --which exclude each other.", "Give one of them.")
    chosen = Which.named if partition else which or Which.needed
    backfill = backfill_named(name, Path.cwd())
    postgres = database_of(backfill)
    with _instance(backfill, chosen) as instance:
        report = plan_backfill(
            backfill, postgres.connect, chosen, partition or [], instance=instance, log=say
        )
    if json:
        print_json(report.as_json())
    else:
        show(report)
    if fail_on_changes and (report.changes or report.failures):
        raise typer.Exit(FAILURES)


def show(report: Report, kept: str = "unchanged") -> None:
    """The report in tables. `kept`: what rows that stay are called."""
    counted = [kept if name == "unchanged" else name.replace("_", " ") for name in COUNTED]
    if not report.assets:
        say("Nothing to do.")
        return
    print_table(["table", *counted], by_table(report))
    print_table(["table", "partition", *counted], by_partition(report), "by partition")
    if report.failures:
        print_table(["table", "partition", "unit", "message"], failures(report), "would fail")
    print_table(["change", "table", "partition", "before", "after"], examples(report), "examples")
    estimate = report.estimate
    of = f"by {estimate.runs} earlier runs" if estimate.runs else "by what this took"
    say(
        f"It would take {duration(estimate.seconds)} ({duration(estimate.low)} to {duration(estimate.high)}, {of})."
    )


def database_of(backfill: Backfill | None = None) -> PostgresResource:
    """The backfill's database, migrated."""
    variable = backfill.declared.database if backfill is not None else None
    if variable and not os.environ.get(variable):
        raise UserError(f"{variable} is not set, which the backfill's database is named by.")
    postgres = PostgresResource(url=os.environ[variable]) if variable else PostgresResource()
    require_migrations(postgres.libpq_url)
    return postgres


@contextmanager
def _instance(backfill: Backfill, which: Which) -> Iterator[dg.DagsterInstance | None]:
    """Dagster's instance, where only that knows what is missing."""
    declared = backfill.declared
    if which not in (Which.needed, Which.missing) or declared.missing or declared.due:
        yield None
        return
    os.environ.update(dagster_environment())
    with dg.DagsterInstance.get() as instance:
        yield instance
