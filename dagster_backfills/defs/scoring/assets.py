"""The three histories as assets, a partition a day. The rules stand in `rules.py` and `action_rules.py`."""

from typing import Any

import dagster as dg
import psycopg
from pydantic import Field

from dagster_backfills.defs.scoring.partitions import scoring_days
from dagster_backfills.defs.scoring.settings import ScoringSettings
from dagster_backfills.defs.scoring.tables import ACTIONS, CHURN, COMMITMENT, Work
from dagster_backfills.lib.engine.model import Target
from dagster_backfills.lib.errors import UserError
from dagster_backfills.lib.postgres.resource import PostgresResource


class ScoreDay(dg.Config):
    """Which members of the day."""

    gym: str = Field(default="", description="Only the members of this gym (its id); empty: of all.")


def _asset_args(target: Target, description: str) -> dict[str, Any]:
    return {
        "key": target.asset.split("/"),
        "description": description,
        "metadata": target.metadata(),
        "partitions_def": scoring_days,
        "backfill_policy": dg.BackfillPolicy.single_run(),
        "group_name": "scoring",
        "kinds": {"postgres", "pandas"},
        "io_manager_key": "scoring_writer",
    }


@dg.asset(
    **_asset_args(
        COMMITMENT,
        "One row an active member and day: the commitment score as of that day, its four factors, time decay, "
        "velocity, risk flags and band. The newest day's score stands on the member too.",
    )
)
def commitment_scores(
    config: ScoreDay, postgres: PostgresResource, scoring_settings: ScoringSettings
) -> Work:
    """Visits up to and including the day, by the weights that are configured."""
    gym = _known_gym(postgres, config.gym)
    return Work(COMMITMENT, "members_of_day", gym, scoring_settings.parsed_weights)


@dg.asset(
    deps=[COMMITMENT.asset.split("/")],
    **_asset_args(
        CHURN,
        "One row an active member and day: churn risk level and score, from the commitment score of that day.",
    ),
)
def churn_risk_scores(config: ScoreDay, postgres: PostgresResource) -> Work:
    """Of the members that have a commitment score of the day."""
    return Work(CHURN, "scored_members_of_day", _known_gym(postgres, config.gym))


@dg.asset(
    deps=[CHURN.asset.split("/")],
    **_asset_args(
        ACTIONS,
        "At most one row a member, coach and day: what the coach should do about a member at risk, and why.",
    ),
)
def coach_actions(config: ScoreDay, postgres: PostgresResource) -> Work:
    """Of the members at risk that have a coach."""
    return Work(ACTIONS, "members_at_risk_of_day", _known_gym(postgres, config.gym))


def _known_gym(postgres: PostgresResource, gym: str) -> str | None:
    """The gym, or None for all. Raises Failure where there is none of that id."""
    if not gym:
        return None
    with postgres.connect() as conn:
        known = _gym_exists(conn, gym)
        conn.rollback()
    if not known:
        error = UserError(f"There is no gym {gym!r}.", hint="Give the id of a row of scoring.gyms.")
        raise dg.Failure(str(error), allow_retries=False)
    return gym


def _gym_exists(conn: psycopg.Connection, gym: str) -> bool:
    return conn.execute("select 1 from scoring.gyms where id = %s", [gym]).fetchone() is not None
