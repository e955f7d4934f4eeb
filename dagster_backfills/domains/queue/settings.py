"""Settings of runs, media and engines, read from environment variables at each use.

Not here: settings of the queue itself (table `jobs.queue_settings`).
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
        """Read the settings. Raises BadSetting, naming the invalid variable."""
        return cls(**from_environment(cls, cls.prefix, environment))


class DrainPolicy(_Settings):
    """How many runs process the queue: `JOBS_MAX_RUNS` and so on."""

    max_runs: int = Field(default=2, ge=1, description="Maximum number of concurrent runs.")
    further_run_after_seconds: float = Field(
        default=20.0, ge=0, description="Launch another run once a job has waited this long."
    )
    concurrency: int = Field(default=4, ge=1, description="Jobs processed concurrently in one run.")

    def should_launch(self, due: int, oldest_seconds: float, active: int) -> bool:
        """Whether to launch a run: one at a time, so that each takes effect before the next is launched."""
        if due == 0 or active >= self.max_runs:
            return False
        return active == 0 or oldest_seconds >= self.further_run_after_seconds


class MediaRules(_Settings):
    """Allowed locations and limits of media downloads: `JOBS_MEDIA_HOSTS` and so on."""

    prefix: ClassVar[str] = "JOBS_MEDIA_"
    schemes: Annotated[frozenset[Literal["http", "https"]], Listed] = frozenset({"https"})
    hosts: Annotated[tuple[Host, ...], Listed] = Field(
        default=(),
        description="Host names, `*.example.com` or `name:port`; without a port, the scheme's default port.",
    )
    private_hosts: Annotated[tuple[Host, ...], Listed] = Field(
        default=(), description="Allowed hosts that may have a private address."
    )
    folders: Annotated[tuple[Path, ...], Listed] = Field(
        default=(), description="Folders allowed in `file:` URLs."
    )
    max_mb: float = Field(default=2048, gt=0, description="Maximum size of a download, in megabytes.")
    max_seconds: float = Field(default=900, gt=0, description="Maximum duration of a download.")

    @property
    def max_bytes(self) -> int:
        return int(self.max_mb * 1024 * 1024)


class EngineRules(_Settings):
    """Engines and their limits: `JOBS_SOP_ENGINE` and so on."""

    transcription_engine: Engine = Field(
        default_factory=_engine_by_key,
        description="Defaults to openai if OPENAI_API_KEY is set, else embedded.",
    )
    sop_engine: Engine = Field(
        default_factory=_engine_by_key,
        description="Defaults to openai if OPENAI_API_KEY is set, else embedded.",
    )
    transcription_model: str = "whisper-1"
    transcription_max_mb: float = Field(
        default=25, gt=0, description="The API's limit for one file, in megabytes. The default is OpenAI's."
    )
    sop_model: str = "gpt-4o-mini"
    api_timeout_seconds: float = Field(default=600, gt=0, description="Timeout of one API call.")
    mux_poll_seconds: float = Field(default=5, gt=0, description="Interval between status checks at Mux.")
    mux_wait_seconds: float = Field(default=7200, gt=0, description="Maximum wait for Mux, per step.")
