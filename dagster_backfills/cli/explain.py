"""`backfills explain NAME UNIT`: the unit's rows, what they would be now, which runs changed them, what is wrong."""

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
    unit: Annotated[str, typer.Argument(help="A unit (a member, a user) or a partition.")],
    date: Annotated[
        str, typer.Option(help="Of scoring: as of this day, YYYY-MM-DD; yesterday without it.")
    ] = "",
    json: Json = False,
) -> None:
    """What a unit's row is and would be now, which runs changed it and what stood before, what is stale or failed."""
    backfill = named(name, "explain")
    if not isinstance(backfill, Declared):
        from dagster_backfills.cli.scoring.commands import explain_member  # it computes, with pandas

        explain_member(unit, date, json)
        return
    if date:
        raise UserError(f"{backfill.name} is not explained as of a day.", "Leave --date out.")
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
                ["at", "run", "change", "before", "an undo of"],
                [
                    (c["committed_at"], c["run_id"], c["change"], _text(c["before"]), c["undoes"])
                    for c in table.changes
                ],
                "changed by",
                ids=["run"],
            )
    for failure in explanation.failures:
        what = failure["unit"] or failure["partition"] or "all of it"
        say(
            f"{failure['asset']}: {what} failed, {counted(failure['attempts'], 'time')}: {failure['message']}"
        )
    for stale in explanation.stale:
        say(
            f"{stale['asset']} is stale for {stale['partition'] or 'all of it'}, since {stale['since']:%Y-%m-%d %H:%M}."
        )
    for undone in explanation.undone:
        say(
            f"{undone['asset']} was undone for {undone['partition'] or 'all of it'}, by run {undone['run_id']}."
        )


def _heading(explanation: Explanation) -> str:
    unit, partitions = explanation.unit, explanation.partitions
    if partitions == [unit]:
        return f"Partition {unit}" if unit else "All of it"
    return f"{unit} in {', '.join(key or 'all of it' for key in partitions) or 'no partition'}"


def _rows(table: Explained) -> list[tuple[str, str | None]]:
    rows = [("is", _text(row)) for row in table.rows] or [("is", "no row")]
    if table.now is not None:
        rows += [("its query gives", _text(row)) for row in table.now] or [("its query gives", "no row")]
    return rows


def _text(row: Mapping[str, Any] | None) -> str | None:
    return None if row is None else ", ".join(f"{name}={in_words(value)}" for name, value in row.items())
