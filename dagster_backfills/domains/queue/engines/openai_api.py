"""Both kinds of language work through any API that speaks OpenAI's: address, models and key from the environment."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import PurePosixPath
from typing import IO, Any
from urllib.parse import unquote, urlsplit

from pydantic import ValidationError

from dagster_backfills.domains.queue.config import number
from dagster_backfills.domains.queue.engines.speech import finished
from dagster_backfills.domains.queue.errors import JobError, PermanentJobError
from dagster_backfills.domains.queue.registry import describe
from dagster_backfills.domains.queue.schemas import Segment, SopAnswer, SopInput, TranscriptionOutput

_TASK = """You write standard operating procedures from the transcript of a training recording. Answer in JSON:
chapters (title, start and end in seconds, in order, one at each change of topic, all between 0 and {duration:g}),
sop_markdown (a heading, then the numbered steps of the procedure, "1. " first) and key_points (5 to 7 sentences).
Use only what the transcript says."""


def transcribe_with_api(file: IO[bytes], url: str, language: str | None) -> TranscriptionOutput:
    """The transcript from `JOBS_TRANSCRIPTION_MODEL` (default whisper-1)."""
    import openai

    name = PurePosixPath(unquote(urlsplit(url).path)).name or "recording"
    with _errors_told(openai), _client(openai) as client:
        answer = client.audio.transcriptions.create(
            model=os.environ.get("JOBS_TRANSCRIPTION_MODEL") or "whisper-1",
            file=(name, file),
            response_format="verbose_json",
            timestamp_granularities=["segment"],
            **({"language": language} if language else {}),
        )
    duration = float(answer.duration)
    parts = answer.segments or []
    segments = [
        Segment(start=max(0.0, p.start), end=max(p.start, 0.0, min(p.end, duration)), text=p.text.strip())
        for p in parts
    ]
    if not segments and answer.text.strip():
        segments = [Segment(start=0, end=duration, text=answer.text.strip())]
    return finished(segments, duration, answer.language or language or "", "openai")


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
            model=os.environ.get("JOBS_SOP_MODEL") or "gpt-4o-mini",
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
    return checked(message.content, given.duration)


def checked(content: str, duration: float) -> SopAnswer:
    """The answer, if it is one. Raises JobError that names every fault."""
    try:
        answer = SopAnswer.model_validate_json(content)
    except ValidationError as error:
        raise JobError(f"The model's answer does not fit: {describe(error)}.", kind="bad_answer") from None
    if problems := answer.problems(duration):
        raise JobError(f"The model's answer does not fit: {'; '.join(problems)}.", kind="bad_answer")
    return answer


@contextmanager
def _client(openai: Any) -> Iterator[Any]:
    if not os.environ.get("OPENAI_API_KEY"):
        raise PermanentJobError(
            "OPENAI_API_KEY is not set, and the engine openai needs it.", kind="configuration"
        )
    timeout = number(os.environ, "JOBS_API_TIMEOUT_SECONDS", 600)
    with openai.OpenAI(max_retries=1, timeout=timeout) as client:
        yield client


@contextmanager
def _errors_told(openai: Any) -> Iterator[None]:
    """The client's errors as ours: what the queue's own retries may help with, and what not."""
    try:
        yield
    except (openai.RateLimitError, openai.InternalServerError, openai.ConflictError) as error:
        raise JobError(f"The API answered {error.status_code}: {error.message}", kind="api") from error
    except openai.APIStatusError as error:
        raise PermanentJobError(
            f"The API answered {error.status_code}: {error.message}", kind="api"
        ) from error
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
