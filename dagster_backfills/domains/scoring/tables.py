"""The three history tables, and the rows that a run for a day may write. Not here: their content (`histories`)."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from psycopg import sql

from dagster_backfills.engine.model import Target
from dagster_backfills.engine.table.address import Address

# No journal: a day can always be scored again, and the journal's keys would take more space than the scores.
COMMITMENT = Target("scoring/commitment_scores", partition_by="day", unit="member_id", journal=False)
CHURN = Target("scoring/churn_risk_scores", partition_by="day", unit="member_id", journal=False)
ACTIONS = Target("scoring/coach_actions", partition_by="day", unit="member_id", journal=False)
CHAIN = (COMMITMENT, CHURN, ACTIONS)


@dataclass(frozen=True)
class DaySlice(Address):
    """A day's rows of the members who are active now, of one gym or of all.

    Past scores of members who have left are not part of it, so they are never removed.
    """

    gym: str | None = None

    def binds(self, keys: Sequence[str]) -> dict[str, Any]:
        return {"partition_keys": list(keys), "gym": self.gym}

    def predicate(self, alias: str) -> sql.Composable:
        # A scalar subquery looks up each row's member by key. EXISTS would hash all members for every batch.
        return sql.SQL(
            "{day} = any(%(partition_keys)s::text[]::date[]) and (select dm.status = 'active'"
            " and (%(gym)s::text is null or dm.gym_id = %(gym)s) from scoring.members as dm"
            " where dm.id = {member})"
        ).format(day=sql.Identifier(alias, "day"), member=sql.Identifier(alias, "member_id"))

    def candidates(self, alias: str) -> sql.Composable:
        # Includes members who have left: nothing is due for them, so nothing is written for them.
        return sql.SQL(
            "{day} = any(%(partition_keys)s::text[]::date[]) and (%(gym)s::text is null"
            " or {member} in (select dm.id from scoring.members as dm where dm.gym_id = %(gym)s))"
        ).format(day=sql.Identifier(alias, "day"), member=sql.Identifier(alias, "member_id"))

    def label(self, alias: str) -> sql.Composable:
        return sql.SQL("{}::text").format(sql.Identifier(alias, "day"))
