"""Handlers of the built-in job types: download the media, call an engine, validate its answer.

Not here: the engines (`engines/`).
"""

from collections.abc import Callable

from dagster_backfills.domains.queue.context import JobContext
from dagster_backfills.domains.queue.engines import mux, openai_api, sop, speech
from dagster_backfills.domains.queue.errors import JobError
from dagster_backfills.domains.queue.media import open_media
from dagster_backfills.domains.queue.registry import job_type
from dagster_backfills.domains.queue.schemas import (
    MuxInput,
    MuxOutput,
    SopInput,
    SopOutput,
    TranscriptionInput,
    TranscriptionOutput,
)
from dagster_backfills.domains.queue.settings import EngineRules, MediaRules


@job_type(TranscriptionInput, TranscriptionOutput, name="transcription", timeout=2 * 3600, observed=True)
def transcribe(job: JobContext[TranscriptionInput]) -> TranscriptionOutput:
    """Transcribe the recording at `audio_url`, with segments."""
    engine = EngineRules.from_environment().transcription_engine
    with open_media(job.input.audio_url, MediaRules.from_environment(), _download_progress(job)) as file:
        if engine == "openai":
            job.progress(20, "waiting for the API")
            return openai_api.transcribe_with_api(file, job.input.audio_url, job.input.language, job.progress)
        return speech.transcribe_embedded(file, job.input.language, job.progress)


@job_type(SopInput, SopOutput, name="sop_generation", timeout=1800, observed=True)
def generate_sop(job: JobContext[SopInput]) -> SopOutput:
    """Turn a title, transcript and duration into chapters, a procedure and key points."""
    engine = EngineRules.from_environment().sop_engine
    job.progress(10, "reading the transcript")
    answer = openai_api.sop_with_api(job.input) if engine == "openai" else sop.sop_embedded(job.input)
    if problems := answer.problems(job.input.duration):
        raise JobError(f"The answer is not valid: {'; '.join(problems)}.", kind="bad_answer")
    return SopOutput(**answer.model_dump(), title=job.input.title, engine=engine)


@job_type(MuxInput, MuxOutput, name="mux_upload", timeout=4 * 3600, observed=True)
def upload_to_mux(job: JobContext[MuxInput]) -> MuxOutput:
    """Upload the video at `video_url` to Mux, and wait until it can be played."""
    mux.check_credentials()
    with open_media(job.input.video_url, MediaRules.from_environment(), _download_progress(job)) as file:
        return mux.upload(file, job.progress)


def _download_progress(job: JobContext) -> Callable[[int, int | None], None]:
    """Report the download as the first 10 percent of the job."""

    def report(done: int, total: int | None) -> None:
        job.progress(10 * done / total if total else 5, f"downloaded {done >> 20} MB")

    return report
