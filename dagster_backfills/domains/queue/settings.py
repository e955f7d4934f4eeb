"""What the environment says about runs, media and engines, read when it is needed; and how many runs that makes.
Not here: the queue's own settings, which are in the database.
"""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, ClassVar, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, StringConstraints

from dagster_backfills.environment import Listed, from_environment

Engine = Literal["openai", "embedded"]
Host = Annotated[str, StringConstraints(to_lower=True)]


def _engine_by_key() -> Engine:
    return "openai" if os.environ.get("OPENAI_API_KEY") else "embedded"


class _Settings(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)
    prefix: ClassVar[str] = "JOBS_"

    @classmethod
    def from_environment(cls, environment: Mapping[str, str] | None = None) -> Self:
        """As the variables say. Raises BadSetting that names the one that is wrong."""
        return cls(**from_environment(cls, cls.prefix, environment))


class DrainPolicy(_Settings):
    """How many runs work the queue off: `JOBS_MAX_RUNS` and so on."""

    max_runs: int = Field(default=2, ge=1, description="Runs side by side.")
    further_run_after_seconds: float = Field(
        default=20.0, ge=0, description="A further run starts beside another once a job has waited so long."
    )
    concurrency: int = Field(default=4, ge=1, description="Jobs side by side in one run.")

    def runs_to_launch(self, due: int, oldest_seconds: float, active: int) -> int:
        """How many runs to launch now: 0 or 1, so that what the last one launched does is seen first."""
        if due == 0 or active >= self.max_runs:
            return 0
        return int(active == 0 or oldest_seconds >= self.further_run_after_seconds)


class MediaRules(_Settings):
    """Where media may come from, and how much of it: `JOBS_MEDIA_HOSTS` and so on."""

    prefix: ClassVar[str] = "JOBS_MEDIA_"
    schemes: Annotated[frozenset[Literal["http", "https"]], Listed] = frozenset({"https"})
    hosts: Annotated[tuple[Host, ...], Listed] = Field(
        default=(),
        description="Exact names, `*.example.com`, or `name:port`; one without a port means the scheme's own.",
    )
    private_hosts: Annotated[tuple[Host, ...], Listed] = Field(
        default=(), description="Hosts that may have a private address; no other may."
    )
    folders: Annotated[tuple[Path, ...], Listed] = Field(
        default=(), description="What `file:` URLs may name."
    )
    max_mb: float = Field(default=2048, gt=0, description="The largest download, in megabytes.")
    max_seconds: float = Field(default=900, gt=0, description="The longest download.")

    @property
    def max_bytes(self) -> int:
        return int(self.max_mb * 1024 * 1024)


class EngineRules(_Settings):
    """Which engine does which work, and its limits: `JOBS_SOP_ENGINE` and so on."""

    transcription_engine: Engine = Field(
        default_factory=_engine_by_key, description="Unset: openai where OPENAI_API_KEY is set."
    )
    sop_engine: Engine = Field(default_factory=_engine_by_key, description="Likewise.")
    transcription_model: str = "whisper-1"
    transcription_max_mb: float = Field(
        default=25, gt=0, description="What the API takes of one recording, in megabytes: OpenAI's limit."
    )
    sop_model: str = "gpt-4o-mini"
    api_timeout_seconds: float = Field(default=600, gt=0, description="One call of the API.")
    mux_poll_seconds: float = Field(default=5, gt=0, description="How often Mux is asked for an asset.")
    mux_wait_seconds: float = Field(default=7200, gt=0, description="For how long.")
