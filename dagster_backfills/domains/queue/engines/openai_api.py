"""Transcription and SOP generation with any OpenAI-compatible API. URL, models and key are environment variables."""

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import PurePosixPath
from typing import IO, Any
from urllib.parse import unquote, urlsplit

from pydantic import BaseModel, Field, ValidationError

from dagster_backfills.domains.queue.engines import sound
from dagster_backfills.domains.queue.engines.speech import build_output
from dagster_backfills.domains.queue.errors import JobError, PermanentJobError, http_error
from dagster_backfills.domains.queue.registry import describe
from dagster_backfills.domains.queue.schemas import (
    Segment,
    SopAnswer,
    SopInput,
    StorableText,
    TranscriptionOutput,
)
from dagster_backfills.domains.queue.settings import EngineRules

_TASK = """You write standard operating procedures from the transcript of a training recording. Answer in JSON:
chapters (title, start and end in seconds, in order, one at each change of topic, all between 0 and {duration:g}),
sop_markdown (a heading, then the numbered steps of the procedure, "1. " first) and key_points (5 to 7 sentences).
Use only what the transcript says."""


# Formats that the API accepts. It identifies them by the file name's extension.
_EXTENSIONS = frozenset(["flac", "m4a", "mp3", "mp4", "mpeg", "mpga", "oga", "ogg", "wav", "webm"])
_MULTIPART_BYTES = 64 * 1024  # overhead of a request besides the file
_BYTES_PER_SECOND = 2 * sound.RATE
Progress = Callable[[float, str], None]


class _ApiSegment(BaseModel):
    start: float = Field(default=0.0, allow_inf_nan=False)
    end: float = Field(default=0.0, allow_inf_nan=False)
    text: StorableText = ""


class _Transcription(BaseModel):
    """The fields of an answer that are used. Servers may leave out all others."""

    text: StorableText
    duration: float | None = Field(default=None, ge=0, allow_inf_nan=False)
    language: StorableText | None = None
    segments: list[_ApiSegment] | None = None


def transcribe_with_api(
    file: IO[bytes], url: str, language: str | None, progress: Progress = lambda percentage, message: None
) -> TranscriptionOutput:
    """Transcribe with `JOBS_TRANSCRIPTION_MODEL` (default whisper-1).

    A recording larger than `JOBS_TRANSCRIPTION_MAX_MB` (default 25, OpenAI's limit), or in a format that the API does
    not accept, is converted and sent in parts. Raises PermanentJobError if that is not possible.
    """
    import openai

    limit = EngineRules.from_environment().transcription_max_mb
    segments: list[Segment] = []
    duration, detected = 0.0, ""
    with _as_job_errors(openai), _client(openai) as client:
        for start, name, part in _uploads(file, url, limit):
            answer = _transcribe(client, name, part, language)
            duration = start + (answer.duration or max((s.end for s in answer.segments or []), default=0.0))
            detected = detected or answer.language or ""
            segments += _segments(answer, start, duration)
            progress(20, f"{duration:.0f} seconds transcribed")
    return build_output(segments, duration, detected or language or "", "openai")


def _uploads(file: IO[bytes], url: str, limit_mb: float) -> Iterator[tuple[float, str, IO[bytes]]]:
    """The recording in parts that the API accepts: start in seconds, file name and content of each."""
    max_size = limit_mb * 1024 * 1024 - _MULTIPART_BYTES
    size = file.seek(0, os.SEEK_END)
    file.seek(0)
    path = PurePosixPath(unquote(urlsplit(url).path))
    extension = sound.extension_of(file) or path.suffix[1:].lower()
    if size <= max_size and extension in _EXTENSIONS:
        yield 0.0, f"{path.stem or 'recording'}.{extension}", file
        return
    if not sound.can_decode():
        raise PermanentJobError(
            f"The recording is {size / 1024 / 1024:.1f} MB; the limit is {limit_mb:g} MB (JOBS_TRANSCRIPTION_MAX_MB)."
            if size > max_size
            else f"The API does not accept the recording's format; it accepts {', '.join(sorted(_EXTENSIONS))}.",
            kind="too_large" if size > max_size else "undecodable",
            hint="To have it converted and sent in parts: pip install 'dagster-backfills[speech]'.",
        )
    for start, part in sound.parts(file, min(600.0, max_size / _BYTES_PER_SECOND)):
        yield start, "part.wav", part


def _transcribe(client: Any, name: str, part: IO[bytes], language: str | None) -> _Transcription:
    answer = client.audio.transcriptions.create(
        model=EngineRules.from_environment().transcription_model,
        file=(name, part),
        response_format="verbose_json",
        timestamp_granularities=["segment"],
        **({"language": language} if language else {}),
    )
    try:
        return _Transcription.model_validate(
            answer.model_dump(warnings=False) if isinstance(answer, BaseModel) else {"text": answer}
        )
    except ValidationError as error:
        raise JobError(f"The API's answer is not valid: {describe(error)}.", kind="bad_answer") from None


def _segments(answer: _Transcription, start: float, end: float) -> list[Segment]:
    """A part's segments, timed from the start of the recording. If it has none, one segment with all its text."""
    segments = []
    for part in answer.segments or [_ApiSegment(end=end - start, text=answer.text)]:
        begin = min(start + max(0.0, part.start), end)
        segments.append(
            Segment(start=begin, end=max(begin, min(start + part.end, end)), text=part.text.strip())
        )
    return segments


def sop_with_api(sop_input: SopInput) -> SopAnswer:
    """Generate the SOP with `JOBS_SOP_MODEL` (default gpt-4o-mini), using a JSON schema.

    Raises JobError, which is retried, if the answer does not match the schema.
    """
    import openai

    schema = {"name": "sop", "strict": True, "schema": _strict(SopAnswer.model_json_schema())}
    lines = sop_input.transcript
    if sop_input.segments:
        lines = "\n".join(f"[{s.start:g}-{s.end:g}] {s.text}" for s in sop_input.segments)
    with _as_job_errors(openai), _client(openai) as client:
        answer = client.chat.completions.create(
            model=EngineRules.from_environment().sop_model,
            messages=[
                {"role": "system", "content": _TASK.format(duration=sop_input.duration)},
                {"role": "user", "content": f"Title: {sop_input.title}\n\n{lines}"},
            ],
            response_format={"type": "json_schema", "json_schema": schema},
        )
    message = answer.choices[0].message if answer.choices else None
    if message is None or not message.content:
        reason = getattr(message, "refusal", None) or "it is empty"
        raise JobError(f"The model returned no answer: {reason}.", kind="bad_answer")
    try:
        return SopAnswer.model_validate_json(_json_in(message.content))
    except ValidationError as error:
        raise JobError(f"The model's answer is not valid: {describe(error)}.", kind="bad_answer") from None


def _json_in(content: str) -> str:
    """Extract the JSON object from an answer: some models put reasoning before it, or a code fence around it."""
    if content.lstrip().startswith("{"):
        return content
    answer = content.rpartition("</think>")[2]
    return answer[answer.find("{") : answer.rfind("}") + 1] or content


@contextmanager
def _client(openai: Any) -> Iterator[Any]:
    if not os.environ.get("OPENAI_API_KEY"):
        raise PermanentJobError(
            "OPENAI_API_KEY is not set; the engine openai requires it.", kind="configuration"
        )
    with openai.OpenAI(max_retries=1, timeout=EngineRules.from_environment().api_timeout_seconds) as client:
        yield client


@contextmanager
def _as_job_errors(openai: Any) -> Iterator[None]:
    """Raise the client library's errors as JobError or PermanentJobError."""
    try:
        yield
    except openai.APIStatusError as error:
        hint = "Set JOBS_TRANSCRIPTION_MAX_MB to the API's limit." if error.status_code == 413 else ""
        message = f"The API returned status {error.status_code}: {error.message}"
        raise http_error(error.status_code, message, kind="api", hint=hint) from error
    except openai.APIConnectionError as error:
        raise JobError(f"The API could not be reached: {error.message}", kind="network") from error


def _strict(schema: Any) -> Any:
    """Remove the keywords that strict mode does not support. The answer is validated against them later."""
    if isinstance(schema, list):
        return [_strict(s) for s in schema]
    if not isinstance(schema, dict):
        return schema
    unsupported = {"minLength", "minItems", "maxItems", "minimum", "title", "description", "default"}
    properties = schema.get("properties")
    kept = {k: _strict(v) for k, v in schema.items() if k not in unsupported and k != "properties"}
    if properties is not None:
        kept["properties"] = {name: _strict(p) for name, p in properties.items()}
        kept["required"] = list(properties)
    return kept
