"""What is written of the three histories: who is due, what is read of them, the pure function that makes the rows.

Not here: the rules themselves (`rules.py`, `action_rules.py`), and what is done around a day (`day_record.py`).
"""

from collections.abc import Callable, Sequence
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


def write_of(target: Target, weights: Weights, gym: str | None = None) -> Write:
    """What the engine writes of a day of this history: for the members of one gym, or of all."""
    made: dict[str, tuple[str, str, Callable[[pd.DataFrame], pd.DataFrame]]] = {
        COMMITMENT.asset: ("members_of_day", "features", partial(rules.commitment_scores, weights=weights)),
        CHURN.asset: ("scored_members_of_day", "churn_inputs", rules.churn_risk_scores),
        ACTIONS.asset: ("members_at_risk_of_day", "action_inputs", coach_actions),
    }
    units, reads, rows = made[target.asset]

    def compute(conn: psycopg.Connection, days: Sequence[str], members: Sequence[str] | None) -> pd.DataFrame:
        (day,) = days  # each is worked by itself
        if members is None:  # of a whole day, which is small then
            due = conn.execute(STATEMENTS[units], {"partition_keys": [day], "gym": gym})
            members = [unit for _, unit in due]
        frame = read_frame(conn, reads, date.fromisoformat(day), members)
        return schemas.checked(target.asset, rows(frame)).assign(day=day)

    return Write(
        target,
        Compute(compute, prefetch=_PREFETCH),
        units=Query(STATEMENTS[units]),
        owned=None if gym is None else Query(STATEMENTS["members_of_gym"], {"gym": gym}),
        address=DaySlice(gym),
    )
