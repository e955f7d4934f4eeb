"""Where the three histories lie, and which of their rows belong to a day. What they hold is in `histories.py`."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from psycopg import sql

from dagster_backfills.domains.scoring.weights import Weights
from dagster_backfills.engine.model import Target, Write
from dagster_backfills.engine.table.address import Address

# Without a journal: a day can be scored anew at any time, and a month's keys of all members are more than the scores.
COMMITMENT = Target("scoring/commitment_scores", partition_by="day", unit="member_id", journal=False)
CHURN = Target("scoring/churn_risk_scores", partition_by="day", unit="member_id", journal=False)
ACTIONS = Target("scoring/coach_actions", partition_by="day", unit="member_id", journal=False)
CHAIN = (COMMITMENT, CHURN, ACTIONS)


@dataclass(frozen=True)
class DaySlice(Address):
    """A day's rows of members that are active now, of one gym or of all.

    What a member who has left was scored on a past day is history: it lies in no slice, and so is never removed.
    """

    gym: str | None = None

    def binds(self, keys: Sequence[str]) -> dict[str, Any]:
        return {"partition_keys": list(keys), "gym": self.gym}

    def predicate(self, alias: str) -> sql.Composable:
        # A look at each row's own member. As EXISTS it would put all members into a hash, for every batch of rows.
        return sql.SQL(
            "{day} = any(%(partition_keys)s::text[]::date[]) and (select dm.status = 'active'"
            " and (%(gym)s::text is null or dm.gym_id = %(gym)s) from scoring.members as dm"
            " where dm.id = {member})"
        ).format(day=sql.Identifier(alias, "day"), member=sql.Identifier(alias, "member_id"))

    def candidates(self, alias: str) -> sql.Composable:
        # With the members who have left: nothing is due for them, and nothing of theirs is written.
        return sql.SQL(
            "{day} = any(%(partition_keys)s::text[]::date[]) and (%(gym)s::text is null"
            " or {member} in (select dm.id from scoring.members as dm where dm.gym_id = %(gym)s))"
        ).format(day=sql.Identifier(alias, "day"), member=sql.Identifier(alias, "member_id"))

    def label(self, alias: str) -> sql.Composable:
        return sql.SQL("{}::text").format(sql.Identifier(alias, "day"))


def write_of(target: Target, weights: Weights, gym: str | None = None) -> Write:
    """What the engine writes of a day of this history, for the members of one gym or of all."""
    # The rules compute with pandas, which a run loads and the code location does not.
    from dagster_backfills.domains.scoring import histories

    return histories.write_of(target, weights, gym)
