"""What a day's numbers look like to people: what is said of a materialized day, and the job's closing line."""

from typing import Any

import psycopg

from dagster_backfills.domains.scoring.days import Coverage
from dagster_backfills.domains.scoring.statements import STATEMENTS
from dagster_backfills.domains.scoring.tables import ACTIONS, CHURN, COMMITMENT
from dagster_backfills.engine.outcome import Counts

WHAT = {COMMITMENT.asset: "members", CHURN.asset: "members", ACTIONS.asset: "coaches"}
AS_OF = "Visits are those up to the day. Status, joining date and coaches are today's: the sources keep no history."


def day_metadata(conn: psycopg.Connection, asset: str, day: str, coverage: Coverage) -> dict[str, Any]:
    """What one day holds, counted in the database."""
    entries = STATEMENTS.by_name[f"summary_of_{asset.partition('/')[2]}"](conn, day=day)
    due = {f"{WHAT[asset]}_due": coverage.expected, "failures": coverage.failed}
    return entries | due | {"as_of": f"{day}. {AS_OF}"}


def closing_line(asset: str, day: str, counts: Counts, coverage: Coverage, seconds: float) -> str:
    """The one line that says how a job went."""
    written = counts.inserted + counts.updated
    what = WHAT[asset]
    made = (
        f"{counts.inserted:,} actions created, {counts.updated:,} updated"
        if asset == ACTIONS.asset
        else f"{written:,} updated"
    )
    return (
        f"{asset} {day}: {coverage.done + coverage.failed:,} {what} processed, {made}, "
        f"{coverage.failed:,} errors, {seconds:.1f} s"
    )
