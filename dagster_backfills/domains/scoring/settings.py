"""Settings of the scoring chain, read from environment variables."""

from collections.abc import Mapping
from datetime import date
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, field_validator

from dagster_backfills.domains.scoring.weights import Weights
from dagster_backfills.engine.settings import EngineSettings
from dagster_backfills.environment import from_environment, usable_from_environment

_PREFIX = "SCORING_"


class ScoringSettings(BaseModel):
    """Settings of the scoring chain. Each field is read from the variable `SCORING_<FIELD>` if it is set."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    weights: str = Field(
        default="0.35,0.25,0.25,0.15",
        description="Weights of attendance decay, missed sessions, time gaps and decline velocity. They must sum to 1.",
    )
    batch_members: int = Field(default=20_000, ge=1, description="Members in the first batch.")
    max_batch_members: int = Field(default=50_000, ge=1, description="Maximum batch size, in members.")
    batch_seconds: float = Field(
        default=2.0,
        ge=0,
        description="Target duration of a batch; the batch size is adapted to it. 0 keeps the size constant.",
    )
    batch_delay_seconds: float = Field(default=0.0, ge=0, description="Pause between two batches.")
    max_failed_percent: float = Field(
        default=1.0,
        ge=0,
        le=100,
        description="If a higher share of members fails, the day is partial and holds the chain.",
    )
    catch_up_days: int = Field(
        default=7, ge=1, description="How many days back the sensors look for missed days."
    )
    max_runtime_seconds: int = Field(default=600, ge=1, description="Maximum duration of a daily run.")
    distribution_shift_points: float = Field(
        default=10.0,
        gt=0,
        description="Warn if the mean score differs from the previous day's by more points than this.",
    )
    first_day: date = Field(default=date(2020, 1, 1), description="The first day that can be scored.")

    @field_validator("weights")
    @classmethod
    def _weights_sum_to_one(cls, text: str) -> str:
        Weights.parse(text)
        return text

    @property
    def parsed_weights(self) -> Weights:
        return Weights.parse(self.weights)

    def engine(self) -> EngineSettings:
        """The engine's batch settings."""
        return EngineSettings(
            batch_units=self.batch_members,
            max_batch_units=max(self.batch_members, self.max_batch_members),
            target_seconds=self.batch_seconds,
            delay_seconds=self.batch_delay_seconds,
        )


def settings_from(environment: Mapping[str, str] | None = None) -> ScoringSettings:
    """Read the settings. Raises UserError, naming the invalid variable."""
    return ScoringSettings(**from_environment(ScoringSettings, _PREFIX, environment))


def setting_at_load(field: str, environment: Mapping[str, str] | None = None) -> Any:
    """One setting that is needed while Dagster loads the code location. An invalid variable gives the default."""
    return getattr(ScoringSettings(**usable_from_environment(ScoringSettings, _PREFIX, environment)), field)
