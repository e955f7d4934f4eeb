"""The three histories as declarations: who is due, what is read of them, and the pure function that makes the rows.

Not here: the rules themselves (`rules.py`, `action_rules.py`), and what is done around a day (`day_record.py`).
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from datetime import date
from functools import partial

import pandas as pd
import psycopg

from dagster_backfills.domains.scoring import rules, schemas
from dagster_backfills.domains.scoring.action_rules import coach_actions
from dagster_backfills.domains.scoring.features import read_frame
from dagster_backfills.domains.scoring.statements import STATEMENTS
from dagster_backfills.domains.scoring.tables import ACTIONS, CHURN, COMMITMENT, DaySlice
from dagster_backfills.domains.scoring.weights import Weights
from dagster_backfills.engine.model import Compute, Query, Target, Write

# Batches of members read while another is written. The day's lock keeps other runs of the day away.
_PREFETCH = 2


@dataclass(frozen=True)
class History:
    """One history. `units` and `features` name statements; `rows` makes a batch's rows of its features."""

    target: Target
    units: str
    features: str
    rows: Callable[[pd.DataFrame], pd.DataFrame]

    def write(self, gym: str | None = None) -> Write:
        """What the engine writes of a day: for the members of one gym, or of all."""

        def compute(
            conn: psycopg.Connection, days: Sequence[str], members: Sequence[str] | None
        ) -> pd.DataFrame:
            (day,) = days  # each is worked by itself
            if members is None:  # of a whole day, which is small then
                binds = {"partition_keys": [day], "gym": gym}
                members = [unit for _, unit in conn.execute(STATEMENTS[self.units], binds)]
            features = read_frame(conn, self.features, date.fromisoformat(day), members)
            return schemas.checked(self.target.asset, self.rows(features)).assign(day=day)

        return Write(
            self.target,
            Compute(compute, prefetch=_PREFETCH),
            units=Query(STATEMENTS[self.units]),
            owned=None if gym is None else Query(STATEMENTS["members_of_gym"], {"gym": gym}),
            address=DaySlice(gym),
        )


_HISTORIES = [
    History(COMMITMENT, "members_of_day", "features", rules.commitment_scores),
    History(CHURN, "scored_members_of_day", "churn_inputs", rules.churn_risk_scores),
    History(ACTIONS, "members_at_risk_of_day", "action_inputs", coach_actions),
]


def history_of(target: Target, weights: Weights) -> History:
    """The history that this table holds; commitment by these weights."""
    (history,) = (each for each in _HISTORIES if each.target == target)
    if target == COMMITMENT:
        return replace(history, rows=partial(rules.commitment_scores, weights=weights))
    return history
