"""Where the three histories lie, and which rows of them a run works. What the rows hold is in `rules.py`."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date
from typing import TYPE_CHECKING, Any

import psycopg
from psycopg import sql

from dagster_backfills.defs.scoring import rules, schemas
from dagster_backfills.defs.scoring.action_rules import coach_actions
from dagster_backfills.defs.scoring.features import read_frame, statement
from dagster_backfills.defs.scoring.weights import Weights
from dagster_backfills.lib.engine.model import Compute, Query, Target, Write
from dagster_backfills.lib.postgres.address import Address

if TYPE_CHECKING:
    import pandas as pd

COMMITMENT = Target("scoring/commitment_scores", partition_by="day", unit="member_id")
CHURN = Target("scoring/churn_risk_scores", partition_by="day", unit="member_id")
ACTIONS = Target("scoring/coach_actions", partition_by="day", unit="member_id")
CHAIN = (COMMITMENT, CHURN, ACTIONS)
# Batches of members read while another is written. The day's lock keeps other runs of the day away.
_PREFETCH = 2


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


@dataclass(frozen=True)
class Work:
    """One asset's share of a day: which members are due, and the frame of a batch of them."""

    target: Target
    units: str
    gym: str | None = None
    weights: Weights = field(default_factory=Weights)

    def write(self) -> Write:
        """What the engine writes."""
        owned = Query(statement("members_of_gym"), {"gym": self.gym}) if self.gym is not None else None
        source = Compute(self.compute, prefetch=_PREFETCH)
        return Write(self.target, source, units=Query(statement(self.units)), owned=owned)

    def compute(
        self, conn: psycopg.Connection, days: Sequence[str], members: Sequence[str] | None
    ) -> "pd.DataFrame":
        """The rows of a batch. Raises ValueError that names the first member which can't be scored."""
        import pandas as pd

        frames = []
        for day in days:
            # A whole day is small: it is read at once.
            whom = self.due(conn, day) if members is None else members
            frames.append(self.frame(conn, date.fromisoformat(day), whom).assign(day=day))
        return frames[0] if len(frames) == 1 else pd.concat(frames)

    def due(self, conn: psycopg.Connection, day: str) -> list[str]:
        """The members that the day's rows are computed for."""
        binds: Mapping[str, Any] = {"partition_keys": [day], "gym": self.gym}
        return [unit for _, unit in conn.execute(statement(self.units), binds)]

    def frame(self, conn: psycopg.Connection, day: date, members: Sequence[str]) -> "pd.DataFrame":
        """The asset's rows for some members, without their day."""
        if self.target is COMMITMENT:
            features = read_frame(conn, "features", day, members)
            for member, problem in rules.problems(features).items():
                raise ValueError(f"Member {member!r} can't be scored: {problem}.")
            return schemas.checked(COMMITMENT.asset, rules.commitment_scores(features, self.weights))
        if self.target is CHURN:
            inputs = read_frame(conn, "churn_inputs", day, members)
            return schemas.checked(CHURN.asset, rules.churn_risk_scores(inputs))
        return schemas.checked(ACTIONS.asset, coach_actions(read_frame(conn, "action_inputs", day, members)))
