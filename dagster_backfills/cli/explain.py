"""`backfills explain NAME UNIT`: a unit's rows, what the query returns now, its changes, failures and staleness."""

from collections.abc import Mapping
from dataclasses import asdict
from typing import Annotated, Any

import typer

from dagster_backfills.cli.backfills import Declared, Name, named
from dagster_backfills.cli.output import Json, print_fields, print_json, print_table, say
from dagster_backfills.engine.explain import Explained, Explanation
from dagster_backfills.errors import UserError
from dagster_backfills.names import counted
from dagster_backfills.postgres.values import in_words


def explain_(
    name: Name,
    unit: Annotated[str, typer.Argument(metavar="UNIT", help="A unit, such as a member, or a partition.")],
    date: Annotated[
        str, typer.Option(help="Scoring only: as of this day, YYYY-MM-DD. Default: yesterday.")
    ] = "",
    json: Json = False,
) -> None:
    """Show a unit's rows, what the query returns now, which runs changed it, and whether it is stale or failed."""
    backfill = named(name, "explain")
    if not isinstance(backfill, Declared):
        from dagster_backfills.cli.scoring.commands import explain_member  # imports pandas

        explain_member(unit, date, json)
        return
    if date:
        raise UserError(f"--date does not apply to {backfill.name}.", "Leave it out.")
    with backfill.connect() as conn:
        explanation = backfill.explain(conn, unit)
    if json:
        print_json({"backfill": backfill.name, **asdict(explanation)})
    else:
        _show(explanation)


def _show(explanation: Explanation) -> None:
    say(_heading(explanation))
    for table in explanation.tables:
        print_fields([("table", table.asset), *_rows(table)])
        if table.changes:
            print_table(
                ["at", "run", "change", "before", "undo of"],
                [
                    (c["committed_at"], c["run_id"], c["change"], _text(c["before"]), c["undoes"])
                    for c in table.changes
                ],
                "changed by",
                ids=["run"],
            )
    for failure in explanation.failures:
        what = failure["unit"] or failure["partition"] or "the whole table"
        say(
            f"{failure['asset']}: {what} failed, {counted(failure['attempts'], 'time')}: {failure['message']}"
        )
    for stale in explanation.stale:
        say(
            f"{stale['asset']}: {stale['partition'] or 'the whole table'} is stale "
            f"since {stale['since']:%Y-%m-%d %H:%M} UTC."
        )
    for undone in explanation.undone:
        say(
            f"{undone['asset']}: {undone['partition'] or 'the whole table'} was undone by run {undone['run_id']}."
        )


def _heading(explanation: Explanation) -> str:
    unit, partitions = explanation.unit, explanation.partitions
    if partitions == [unit]:
        return f"Partition {unit}" if unit else "The whole table"
    return f"{unit} in {', '.join(key or 'the whole table' for key in partitions) or 'no partition'}"


def _rows(table: Explained) -> list[tuple[str, str | None]]:
    rows = [("stored", _text(row)) for row in table.rows] or [("stored", "no row")]
    if table.now is not None:
        rows += [("query returns", _text(row)) for row in table.now] or [("query returns", "no row")]
    return rows


def _text(row: Mapping[str, Any] | None) -> str | None:
    return None if row is None else ", ".join(f"{name}={in_words(value)}" for name, value in row.items())
