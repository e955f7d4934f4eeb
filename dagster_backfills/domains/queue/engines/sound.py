"""Recordings as sound: their format, their samples, and cutting them into parts. Not here: what is said in them.

Decoding needs PyAV, of the extra `speech`.
"""

import io
import wave
from collections.abc import Iterator
from importlib.util import find_spec
from typing import IO, Any

import numpy as np

from dagster_backfills.domains.queue.errors import PermanentJobError

RATE = 16_000
_LONGEST_SECONDS = 6 * 3600
# Containers of one recording. A playlist would have the decoder open what it names, from anywhere.
_FORMATS = (
    "wav,w64,aiff,au,flac,mp3,ogg,aac,amr,caf,mov,mp4,m4a,3gp,3g2,mj2,matroska,webm,avi,asf,mpegts,mpeg,flv"
)
# How a file begins, from which byte on, and the name's ending that an API knows it by.
_BEGINNINGS = (
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


def ending_of(file: IO[bytes]) -> str:
    """The ending that names the file's format, by how it begins; empty where that says nothing."""
    head = file.read(16)
    file.seek(0)
    return next((ending for at, mark, ending in _BEGINNINGS if head[at:].startswith(mark)), "")


def can_decode() -> bool:
    """Whether the packages to decode a recording are there."""
    return find_spec("av") is not None


def samples(file: IO[bytes]) -> Iterator[Any]:
    """The recording as 16-bit mono samples at `RATE`, in NumPy arrays as they are decoded.

    Raises PermanentJobError where it can't be decoded, is empty, or is longer than six hours.
    """
    import av

    count = 0
    try:
        options = {"format_whitelist": _FORMATS, "protocol_whitelist": "pipe"}
        with av.open(file, mode="r", metadata_errors="ignore", options=options) as container:
            if not container.streams.audio:
                raise PermanentJobError("The recording has no sound track.", kind="undecodable")
            resampler = av.AudioResampler(format="s16", layout="mono", rate=RATE)
            for frame in _frames(container):
                for part in resampler.resample(frame):
                    found = part.to_ndarray().reshape(-1)
                    count += found.size
                    yield found
                if count > _LONGEST_SECONDS * RATE:
                    raise PermanentJobError("The recording is longer than six hours.", kind="too_large")
    except av.error.FFmpegError as error:
        raise PermanentJobError(
            f"The recording can't be decoded: {error.strerror}.", kind="undecodable"
        ) from None
    if not count:
        raise PermanentJobError("The recording is empty.", kind="undecodable")


def parts(file: IO[bytes], seconds: float) -> Iterator[tuple[float, IO[bytes]]]:
    """The recording in WAV files of at most so many seconds, each with its start, cut where it is quietest."""
    longest, start = int(seconds * RATE), 0
    gathered: list[Any] = []
    size = 0
    for found in samples(file):
        gathered.append(found)
        size += found.size
        while size >= longest:
            whole = np.concatenate(gathered)
            cut = _quiet_place(whole[:longest])
            yield start / RATE, _wav(whole[:cut])
            gathered, size, start = [whole[cut:]], size - cut, start + cut
    if size:
        yield start / RATE, _wav(np.concatenate(gathered))


def _frames(container: Any) -> Iterator[Any]:
    yield from container.decode(audio=0)
    yield None  # what the resampler still has


def _quiet_place(sound: Any) -> int:
    """Where to cut: the quietest tenth of a second within the last ten (or the last half)."""
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
