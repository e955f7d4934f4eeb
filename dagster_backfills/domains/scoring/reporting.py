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
    summaries = {COMMITMENT.asset: _commitment, CHURN.asset: _churn, ACTIONS.asset: _actions}
    entries = summaries[asset](conn, day)
    conn.commit()
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


def _commitment(conn: psycopg.Connection, day: str) -> dict[str, Any]:
    return _scored(conn, "commitment_summary", day, "band", ("low", "moderate", "good", "high"))


def _churn(conn: psycopg.Connection, day: str) -> dict[str, Any]:
    return _scored(conn, "churn_summary", day, "risk", ("none", "low", "medium", "high"))


def _scored(
    conn: psycopg.Connection, name: str, day: str, of_what: str, groups: tuple[str, ...]
) -> dict[str, Any]:
    """Members by band or level, and their mean score."""
    rows = conn.execute(STATEMENTS[name], {"day": day}).fetchall()
    counted = dict.fromkeys(groups, 0) | {group: members for group, members, _ in rows}
    total = sum(counted.values())
    entries: dict[str, Any] = {"members_scored": total} | {f"{of_what}_{g}": n for g, n in counted.items()}
    if total:
        entries["mean_score"] = round(float(sum(n * mean for _, n, mean in rows)) / total, 2)
    return entries


def _actions(conn: psycopg.Connection, day: str) -> dict[str, Any]:
    rows = conn.execute(STATEMENTS["actions_summary"], {"day": day}).fetchall()
    entries: dict[str, Any] = {"actions": sum(n for kind, n, _ in rows if kind is not None)}
    entries["coaches_with_actions"] = next((coaches for kind, _, coaches in rows if kind is None), 0)
    return entries | {f"actions_{kind}": n for kind, n, _ in rows if kind is not None}
