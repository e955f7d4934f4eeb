"""`backfills explain NAME UNIT`: the unit's rows, what they would be now, which runs changed them, what is wrong."""

from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import typer

from dagster_backfills.cli.output import print_json, print_table, say
from dagster_backfills.cli.plan import database_of
from dagster_backfills.components.loading import backfill_named
from dagster_backfills.components.planning import explain_unit
from dagster_backfills.engine.explain import Explained, Explanation

app = typer.Typer()


@app.command("explain")
def explain_(
    name: Annotated[str, typer.Argument(help="The backfill: training_completions, progress_stats, …")],
    unit: Annotated[str, typer.Argument(help="A unit (a member, a user) or a partition.")],
    json: Annotated[
        bool, typer.Option("--json", help="Print JSON on stdout and nothing else there.")
    ] = False,
) -> None:
    """What a unit's row is and would be now, which runs changed it and what stood before, what is stale or failed."""
    backfill = backfill_named(name, Path.cwd())
    with database_of(backfill).connect() as conn:
        explanation = explain_unit(backfill, conn, unit)
    if json:
        print_json({"backfill": backfill.name, **asdict(explanation)})
    else:
        _show(explanation)


def _show(explanation: Explanation) -> None:
    say(f"{explanation.unit} in {', '.join(explanation.partitions) or 'no partition'}")
    for table in explanation.tables:
        print_table(["what", "row"], [*_rows(table)], table.asset)
        if table.changes:
            print_table(
                ["at", "run", "change", "before"],
                [(c["committed_at"], _run(c), c["change"], _text(c["before"])) for c in table.changes],
                "changed by",
            )
    for failure in explanation.failures:
        say(f"Failed, {failure['attempts']} times: {failure['message']}")
    for stale in explanation.stale:
        say(
            f"{stale['asset']} is stale for {stale['partition'] or 'all of it'}, since {stale['since']:%Y-%m-%d %H:%M}."
        )
    for undone in explanation.undone:
        say(
            f"{undone['asset']} was undone for {undone['partition'] or 'all of it'}, by run {undone['run_id']}."
        )


def _rows(table: Explained) -> list[tuple[str, str | None]]:
    rows = [("is", _text(row)) for row in table.rows] or [("is", "no row")]
    if table.now is not None:
        rows += [("its query gives", _text(row)) for row in table.now] or [("its query gives", "no row")]
    return rows


def _run(change: Mapping[str, Any]) -> str:
    return f"{change['run_id']}, an undo of {change['undoes']}" if change["undoes"] else change["run_id"]


def _text(row: Mapping[str, Any] | None) -> str | None:
    return None if row is None else ", ".join(f"{name}={value}" for name, value in row.items())
