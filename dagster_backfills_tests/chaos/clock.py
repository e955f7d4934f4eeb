"""A clock that can be set while its processes run: libfaketime reads it from a file. The monotonic clock is unaffected.

Not here: which processes use it (`stack.py`), and when it is set (`faults.py`).
"""

import os
from contextlib import suppress
from pathlib import Path

import psutil

LIBRARY = next((str(found) for found in sorted(Path("/usr/lib").glob("*/faketime/libfaketimeMT.so.1"))), None)
_SITE = Path(__file__).parent / "clock_site"


class Clock:
    """The time that all processes with this `environment` see."""

    def __init__(self, file: Path) -> None:
        self._file = file
        self.offset = 0
        self.set(0)

    def set(self, offset: int) -> None:
        """Sets the clock to `offset` seconds ahead of the machine's. Takes effect in all processes within a second."""
        new = self._file.with_suffix(".new")
        new.write_text(f"{offset:+d}\n")
        new.replace(self._file)
        self.offset = offset

    @property
    def environment(self) -> dict[str, str]:
        assert LIBRARY is not None
        return {
            "LD_PRELOAD": LIBRARY,
            "FAKETIME_TIMESTAMP_FILE": str(self._file),
            "FAKETIME_CACHE_DURATION": "1",
            "FAKETIME_DONT_FAKE_MONOTONIC": "1",
            "NO_FAKE_STAT": "1",  # file times come from the file server
            "PYTHONPATH": os.pathsep.join(filter(None, [str(_SITE), os.environ.get("PYTHONPATH")])),
        }


def remove_remains() -> None:
    """Removes what libfaketime leaves behind for killed processes; it fails if their process ID is reused."""
    for file in Path("/dev/shm").glob("*faketime_*"):
        with suppress(OSError, ValueError):
            if not psutil.pid_exists(int(file.name.rpartition("_")[2])):
                file.unlink()
