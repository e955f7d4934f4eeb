"""Metadata of a materialized day, and the job's summary line in the log."""

from typing import Any

import psycopg

from dagster_backfills.domains.scoring.days import Coverage
from dagster_backfills.domains.scoring.statements import STATEMENTS
from dagster_backfills.domains.scoring.tables import ACTIONS, CHURN, COMMITMENT
from dagster_backfills.engine.outcome import Counts

NOUN = {COMMITMENT.asset: "members", CHURN.asset: "members", ACTIONS.asset: "coaches"}
AS_OF = (
    "Visits are counted up to the day. Status, joining date and coaches are the current ones: the sources keep no "
    "history of them."
)


def day_metadata(conn: psycopg.Connection, asset: str, day: str, coverage: Coverage) -> dict[str, Any]:
    """Metadata of one day, counted in the database."""
    entries = STATEMENTS.by_name[f"summary_of_{asset.partition('/')[2]}"](conn, day=day)
    due = {f"{NOUN[asset]}_due": coverage.expected, "failures": coverage.failed}
    return entries | due | {"as_of": f"{day}. {AS_OF}"}


def summary_line(asset: str, day: str, counts: Counts, coverage: Coverage, seconds: float) -> str:
    """The job's summary for the log."""
    written = (
        f"{counts.inserted:,} actions created, {counts.updated:,} updated"
        if asset == ACTIONS.asset
        else f"{counts.inserted + counts.updated:,} updated"
    )
    return (
        f"{asset} {day}: {coverage.done + coverage.failed:,} {NOUN[asset]} processed, {written}, "
        f"{coverage.failed:,} errors, {seconds:.1f} s"
    )
