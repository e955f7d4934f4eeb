"""Both kinds of language work through any API that speaks OpenAI's: address, models and key from the environment."""

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import PurePosixPath
from typing import IO, Any
from urllib.parse import unquote, urlsplit

from pydantic import BaseModel, Field, ValidationError

from dagster_backfills.domains.queue.engines import sound
from dagster_backfills.domains.queue.engines.speech import finished
from dagster_backfills.domains.queue.errors import JobError, PermanentJobError, refused
from dagster_backfills.domains.queue.registry import describe
from dagster_backfills.domains.queue.schemas import Said, Segment, SopAnswer, SopInput, TranscriptionOutput
from dagster_backfills.domains.queue.settings import EngineRules

_TASK = """You write standard operating procedures from the transcript of a training recording. Answer in JSON:
chapters (title, start and end in seconds, in order, one at each change of topic, all between 0 and {duration:g}),
sop_markdown (a heading, then the numbered steps of the procedure, "1. " first) and key_points (5 to 7 sentences).
Use only what the transcript says."""


# What the API takes, and the endings by which it tells.
_ENDINGS = frozenset(["flac", "m4a", "mp3", "mp4", "mpeg", "mpga", "oga", "ogg", "wav", "webm"])
_MULTIPART_BYTES = 64 * 1024  # what a request has beside the file
_BYTES_A_SECOND = 2 * sound.RATE
Progress = Callable[[float, str], None]


class _HeardSegment(BaseModel):
    start: float = Field(default=0.0, allow_inf_nan=False)
    end: float = Field(default=0.0, allow_inf_nan=False)
    text: Said = ""


class _Heard(BaseModel):
    """What is used of an answer; a server may leave out the rest."""

    text: Said
    duration: float | None = Field(default=None, ge=0, allow_inf_nan=False)
    language: Said | None = None
    segments: list[_HeardSegment] | None = None


def transcribe_with_api(
    file: IO[bytes], url: str, language: str | None, progress: Progress = lambda percentage, message: None
) -> TranscriptionOutput:
    """The transcript from `JOBS_TRANSCRIPTION_MODEL` (default whisper-1).

    A recording that is larger than `JOBS_TRANSCRIPTION_MAX_MB` (default 25, OpenAI's), or of a format that the API does
    not take, is sent in parts. Raises PermanentJobError where that can't be, naming the limit.
    """
    import openai

    limit = EngineRules.from_environment().transcription_max_mb
    segments: list[Segment] = []
    duration, spoken = 0.0, ""
    with _errors_told(openai), _client(openai) as client:
        for start, name, part in _sendable(file, url, limit):
            heard = _heard(client, name, part, language)
            duration = start + (heard.duration or max((s.end for s in heard.segments or []), default=0.0))
            spoken = spoken or heard.language or ""
            segments += _segments(heard, start, duration)
            progress(20, f"{duration:.0f} seconds heard")
    return finished(segments, duration, spoken or language or "", "openai")


def _sendable(file: IO[bytes], url: str, limit_mb: float) -> Iterator[tuple[float, str, IO[bytes]]]:
    """The recording as the API takes it: start in seconds, file name and content of each part."""
    room = limit_mb * 1024 * 1024 - _MULTIPART_BYTES
    size = file.seek(0, os.SEEK_END)
    file.seek(0)
    path = PurePosixPath(unquote(urlsplit(url).path))
    ending = sound.ending_of(file) or path.suffix[1:].lower()
    if size <= room and ending in _ENDINGS:
        yield 0.0, f"{path.stem or 'recording'}.{ending}", file
        return
    if not sound.can_decode():
        raise PermanentJobError(
            f"The recording has {size / 1024 / 1024:.1f} MB and the API takes {limit_mb:g} (JOBS_TRANSCRIPTION_MAX_MB)."
            if size > room
            else f"The recording's format is none that the API takes ({', '.join(sorted(_ENDINGS))}).",
            kind="too_large" if size > room else "undecodable",
            hint="To have it converted and sent in parts: pip install 'dagster-backfills[speech]'.",
        )
    for start, part in sound.parts(file, min(600.0, room / _BYTES_A_SECOND)):
        yield start, "part.wav", part


def _heard(client: Any, name: str, part: IO[bytes], language: str | None) -> _Heard:
    answer = client.audio.transcriptions.create(
        model=EngineRules.from_environment().transcription_model,
        file=(name, part),
        response_format="verbose_json",
        timestamp_granularities=["segment"],
        **({"language": language} if language else {}),
    )
    try:
        return _Heard.model_validate(
            answer.model_dump(warnings=False) if isinstance(answer, BaseModel) else {"text": answer}
        )
    except ValidationError as error:
        raise JobError(f"The API's answer does not fit: {describe(error)}.", kind="bad_answer") from None


def _segments(heard: _Heard, start: float, end: float) -> list[Segment]:
    """The segments of a part within the whole recording; the part as one where the answer has none."""
    found = []
    for part in heard.segments or [_HeardSegment(end=end - start, text=heard.text)]:
        first = min(start + max(0.0, part.start), end)
        found.append(Segment(start=first, end=max(first, min(start + part.end, end)), text=part.text.strip()))
    return found


def sop_with_api(given: SopInput) -> SopAnswer:
    """The procedure from `JOBS_SOP_MODEL` (default gpt-4o-mini), asked for by JSON schema.

    Raises JobError (retried) that says what was wrong with an answer that does not fit.
    """
    import openai

    schema = {"name": "sop", "strict": True, "schema": _strict(SopAnswer.model_json_schema())}
    lines = given.transcript
    if given.segments:
        lines = "\n".join(f"[{s.start:g}-{s.end:g}] {s.text}" for s in given.segments)
    with _errors_told(openai), _client(openai) as client:
        answer = client.chat.completions.create(
            model=EngineRules.from_environment().sop_model,
            messages=[
                {"role": "system", "content": _TASK.format(duration=given.duration)},
                {"role": "user", "content": f"Title: {given.title}\n\n{lines}"},
            ],
            response_format={"type": "json_schema", "json_schema": schema},
        )
    message = answer.choices[0].message if answer.choices else None
    if message is None or not message.content:
        reason = getattr(message, "refusal", None) or "it is empty"
        raise JobError(f"The model gave no answer: {reason}.", kind="bad_answer")
    try:
        return SopAnswer.model_validate_json(_json_in(message.content))
    except ValidationError as error:
        raise JobError(f"The model's answer does not fit: {describe(error)}.", kind="bad_answer") from None


def _json_in(content: str) -> str:
    """The object in an answer that some servers wrap: thoughts before it, a fence around it."""
    if content.lstrip().startswith("{"):
        return content
    said = content.rpartition("</think>")[2]
    return said[said.find("{") : said.rfind("}") + 1] or content


@contextmanager
def _client(openai: Any) -> Iterator[Any]:
    if not os.environ.get("OPENAI_API_KEY"):
        raise PermanentJobError(
            "OPENAI_API_KEY is not set, and the engine openai needs it.", kind="configuration"
        )
    with openai.OpenAI(max_retries=1, timeout=EngineRules.from_environment().api_timeout_seconds) as client:
        yield client


@contextmanager
def _errors_told(openai: Any) -> Iterator[None]:
    """The client's errors as ours: what the queue's own retries may help with, and what not."""
    try:
        yield
    except openai.APIStatusError as error:
        hint = "Set JOBS_TRANSCRIPTION_MAX_MB to what it takes." if error.status_code == 413 else ""
        message = f"The API answered {error.status_code}: {error.message}"
        raise refused(error.status_code, message, kind="api", hint=hint) from error
    except openai.APIConnectionError as error:
        raise JobError(f"The API could not be reached: {error.message}", kind="network") from error


def _strict(schema: Any) -> Any:
    """The schema without the keywords that strict mode refuses; what they say is checked on the answer."""
    if isinstance(schema, list):
        return [_strict(s) for s in schema]
    if not isinstance(schema, dict):
        return schema
    refused = {"minLength", "minItems", "maxItems", "minimum", "title", "description", "default"}
    properties = schema.get("properties")
    kept = {k: _strict(v) for k, v in schema.items() if k not in refused and k != "properties"}
    if properties is not None:
        kept["properties"] = {name: _strict(p) for name, p in properties.items()}
        kept["required"] = list(properties)
    return kept
