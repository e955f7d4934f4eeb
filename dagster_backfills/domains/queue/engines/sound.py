"""Detect a recording's format, decode it, and split it into parts. Decoding needs PyAV (extra `speech`).

Not here: transcription (`speech`, `openai_api`).
"""

import io
import wave
from collections.abc import Iterator
from importlib.util import find_spec
from typing import IO, Any

import numpy as np

from dagster_backfills.domains.queue.errors import PermanentJobError

RATE = 16_000
_MAX_SECONDS = 6 * 3600
# Single-file containers only: a playlist would make the decoder open arbitrary files and URLs.
_FORMATS = (
    "wav,w64,aiff,au,flac,mp3,ogg,aac,amr,caf,mov,mp4,m4a,3gp,3g2,mj2,matroska,webm,avi,asf,mpegts,mpeg,flv"
)
# Offset, magic bytes, and the file name extension that an API identifies the format by.
_SIGNATURES = (
    (0, b"fLaC", "flac"),
    (0, b"OggS", "ogg"),
    (0, b"ID3", "mp3"),
    (0, b"\xff\xfb", "mp3"),
    (0, b"\xff\xf3", "mp3"),
    (0, b"\xff\xf2", "mp3"),
    (8, b"WAVE", "wav"),
    (4, b"ftypM4A", "m4a"),
    (4, b"ftyp", "mp4"),
    (0, b"\x1a\x45\xdf\xa3", "webm"),
)


def extension_of(file: IO[bytes]) -> str:
    """The extension for the file's format, by its magic bytes; empty if unknown."""
    head = file.read(16)
    file.seek(0)
    return next((name for at, magic, name in _SIGNATURES if head[at:].startswith(magic)), "")


def can_decode() -> bool:
    """Whether the packages for decoding are installed."""
    return find_spec("av") is not None


def samples(file: IO[bytes]) -> Iterator[Any]:
    """Decode the recording to 16-bit mono samples at `RATE`; yields NumPy arrays.

    Raises PermanentJobError if it can't be decoded, is empty, or is longer than six hours.
    """
    import av

    count = 0
    try:
        options = {"format_whitelist": _FORMATS, "protocol_whitelist": "pipe"}
        with av.open(file, mode="r", metadata_errors="ignore", options=options) as container:
            if not container.streams.audio:
                raise PermanentJobError("The recording has no audio track.", kind="undecodable")
            resampler = av.AudioResampler(format="s16", layout="mono", rate=RATE)
            for frame in _frames(container):
                for part in resampler.resample(frame):
                    array = part.to_ndarray().reshape(-1)
                    count += array.size
                    yield array
                if count > _MAX_SECONDS * RATE:
                    raise PermanentJobError("The recording is longer than six hours.", kind="too_large")
    except av.error.FFmpegError as error:
        raise PermanentJobError(
            f"The recording can't be decoded: {error.strerror}.", kind="undecodable"
        ) from None
    if not count:
        raise PermanentJobError("The recording is empty.", kind="undecodable")


def parts(file: IO[bytes], seconds: float) -> Iterator[tuple[float, IO[bytes]]]:
    """Split the recording into WAV files of at most `seconds`, cut where it is quietest; yields start and file."""
    max_size, start = int(seconds * RATE), 0
    buffer: list[Any] = []
    size = 0
    for array in samples(file):
        buffer.append(array)
        size += array.size
        while size >= max_size:
            whole = np.concatenate(buffer)
            cut = _quietest(whole[:max_size])
            yield start / RATE, _wav(whole[:cut])
            buffer, size, start = [whole[cut:]], size - cut, start + cut
    if size:
        yield start / RATE, _wav(np.concatenate(buffer))


def _frames(container: Any) -> Iterator[Any]:
    yield from container.decode(audio=0)
    yield None  # flushes the resampler


def _quietest(sound: Any) -> int:
    """The quietest tenth of a second within the last ten seconds (or the last half, if shorter)."""
    step = RATE // 10
    tail = min(10 * RATE, sound.size // 2) // step * step
    loudness = np.abs(sound[sound.size - tail :].astype(np.int32)).reshape(-1, step).sum(axis=1)
    return int(sound.size - tail + loudness.argmin() * step + step // 2)


def _wav(sound: Any) -> IO[bytes]:
    target = io.BytesIO()
    with wave.open(target, "wb") as file:
        file.setparams((1, 2, RATE, 0, "NONE", ""))
        file.writeframes(sound.tobytes())
    target.seek(0)
    return target
