"""The job that scores one gym's members for a day: the three histories in sequence, with two config fields.

It is made of ops, since a job of partitioned assets can't have a config mapping: it would ask for the gym in each step.
"""

import dagster as dg
from pydantic import Field, field_validator

from dagster_backfills.dagster.failures import without_retry
from dagster_backfills.dagster.launchpad import flat
from dagster_backfills.dagster.resource import PostgresResource
from dagster_backfills.defs.scoring.assets import Settings, day_by_day
from dagster_backfills.defs.scoring.jobs import run_tags
from dagster_backfills.defs.scoring.partitions import scoring_days
from dagster_backfills.domains.scoring.tables import CHAIN
from dagster_backfills.engine.model import Target, WriteSet
from dagster_backfills.errors import UserError


class GymDay(dg.Config):
    """Which gym's members to score, for which day."""

    gym: str = Field(description="The gym's ID.")
    day: str = Field(
        description="The day, such as 2026-01-31. It remains partial until all members have been scored."
    )

    @field_validator("day")
    @classmethod
    def _can_be_scored(cls, day: str) -> str:
        if not scoring_days.has_partition_key(day):
            first, last = scoring_days.get_first_partition_key(), scoring_days.get_last_partition_key()
            raise ValueError(f"{day!r} can't be scored: the days are {first} to {last}")
        return day


def gym_job(*targets: Target) -> dg.JobDefinition:
    """The job for the given histories, in this order."""
    steps = [_step(target) for target in targets]

    @dg.job(
        description="Scores the members of one gym for a day.",
        config=flat(GymDay, *(step.name for step in steps)),
        executor_def=dg.in_process_executor,
        tags=run_tags(),
    )
    def score_one_gym() -> None:
        previous = steps[0]()
        for step in steps[1:]:
            previous = step(previous)

    return score_one_gym


def _step(target: Target) -> dg.OpDefinition:
    @dg.op(
        name=f"one_gym_{target.asset.rpartition('/')[2]}",
        ins={"before": dg.In(dg.Nothing)},
        out=dg.Out(io_manager_key="io_manager"),
        description=f"Writes {target.asset} for the gym's members.",
    )
    def score(
        context: dg.OpExecutionContext,
        config: GymDay,
        postgres: PostgresResource,
        scoring_settings: Settings,
    ) -> WriteSet:
        with postgres.connect() as conn:
            known = conn.execute("select from scoring.gyms where id = %s", [config.gym]).fetchone()
            conn.rollback()
        with without_retry():
            if known is None:
                raise UserError(f"There is no gym {config.gym!r}.", "Pass an ID from scoring.gyms.")
        return day_by_day(context, [config.day], postgres, scoring_settings, target, config.gym)

    return score


score_one_gym = gym_job(*CHAIN)
