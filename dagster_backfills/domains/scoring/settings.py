"""What of scoring is configuration, and the environment variables it comes from. Not here: what it does."""

from collections.abc import Mapping
from datetime import date
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, field_validator

from dagster_backfills.domains.scoring.weights import Weights
from dagster_backfills.engine.settings import EngineSettings
from dagster_backfills.environment import from_environment, usable_from_environment

_PREFIX = "SCORING_"


class ScoringSettings(BaseModel):
    """Settings of the scoring chain. Each field is read from `SCORING_<FIELD>` where that is set."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    weights: str = Field(
        default="0.35,0.25,0.25,0.15",
        description="Weights of attendance decay, missed sessions, time gaps and decline velocity; they sum to 1.",
    )
    batch_members: int = Field(default=20_000, ge=1, description="Members in the first batch.")
    max_batch_members: int = Field(default=50_000, ge=1, description="Ceiling of a batch, in members.")
    batch_seconds: float = Field(
        default=2.0,
        ge=0,
        description="What a batch should take; its size follows. 0 keeps the size as it is.",
    )
    batch_delay_seconds: float = Field(default=0.0, ge=0, description="A rest between two batches.")
    max_failed_percent: float = Field(
        default=1.0,
        ge=0,
        le=100,
        description="A day with more members failed than this is partial, and holds the chain.",
    )
    catch_up_days: int = Field(
        default=7, ge=1, description="How many days back the sensors look for what is missing."
    )
    max_runtime_seconds: int = Field(default=600, ge=1, description="A daily run is ended after this long.")
    distribution_shift_points: float = Field(
        default=10.0,
        gt=0,
        description="A mean score this many points off the day before is worth a warning.",
    )
    first_day: date = Field(default=date(2020, 1, 1), description="The first day that can be chosen.")

    @field_validator("weights")
    @classmethod
    def _weights_sum_to_one(cls, text: str) -> str:
        Weights.parse(text)
        return text

    @property
    def parsed_weights(self) -> Weights:
        return Weights.parse(self.weights)

    def engine(self) -> EngineSettings:
        """Batches of members, sized between 1 and `max_batch_members`."""
        return EngineSettings(
            batch_units=self.batch_members,
            max_batch_units=max(self.batch_members, self.max_batch_members),
            target_seconds=self.batch_seconds,
            delay_seconds=self.batch_delay_seconds,
        )


def settings_from(environment: Mapping[str, str] | None = None) -> ScoringSettings:
    """The settings that an environment asks for. Raises UserError that names the variable that is wrong."""
    return ScoringSettings(**from_environment(ScoringSettings, _PREFIX, environment))


def setting_at_load(field: str, environment: Mapping[str, str] | None = None) -> Any:
    """One setting that Dagster must know while it loads the code."""
    return getattr(ScoringSettings(**usable_from_environment(ScoringSettings, _PREFIX, environment)), field)
