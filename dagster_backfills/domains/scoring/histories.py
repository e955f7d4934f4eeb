"""How each history table is computed: its members, the statement that reads their features, the rule function.

Not here: the rules (`rules`, `action_rules`), locking and recording a day (`day_record`).
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

# Batches computed ahead while another is written. The day's lock excludes other runs of the day.
_PREFETCH = 2


def write_of(target: Target, weights: Weights, gym: str | None = None) -> Write:
    """The engine's write of this history for a day, for the members of one gym or of all."""
    sources: dict[str, tuple[str, str, Callable[[pd.DataFrame], pd.DataFrame]]] = {
        COMMITMENT.asset: ("members_of_day", "features", partial(rules.commitment_scores, weights=weights)),
        CHURN.asset: ("scored_members_of_day", "churn_inputs", rules.churn_risk_scores),
        ACTIONS.asset: ("members_at_risk_of_day", "action_inputs", coach_actions),
    }
    units, features, rule = sources[target.asset]

    def compute(conn: psycopg.Connection, days: Sequence[str], members: Sequence[str] | None) -> pd.DataFrame:
        (day,) = days  # the engine processes each day separately
        if members is None:  # the whole day, if it is small
            due = conn.execute(STATEMENTS[units], {"partition_keys": [day], "gym": gym})
            members = [unit for _, unit in due]
        frame = read_frame(conn, features, date.fromisoformat(day), members)
        return schemas.validated(target.asset, rule(frame)).assign(day=day)

    return Write(
        target,
        Compute(compute, prefetch=_PREFETCH),
        units=Query(STATEMENTS[units]),
        owned=None if gym is None else Query(STATEMENTS["members_of_gym"], {"gym": gym}),
        address=DaySlice(gym),
    )
