"""A clock that can be set while its processes run: libfaketime's, by a file. The monotonic clock goes on as it does.

Not here: who has it (`stack.py`), and when it is set (`faults.py`).
"""

import os
from contextlib import suppress
from pathlib import Path

import psutil

LIBRARY = next((str(found) for found in sorted(Path("/usr/lib").glob("*/faketime/libfaketimeMT.so.1"))), None)
_SITE = Path(__file__).parent / "clock_site"


class Clock:
    """What all processes with this `environment` take for the time."""

    def __init__(self, file: Path) -> None:
        self._file = file
        self.offset = 0
        self.set(0)

    def set(self, offset: int) -> None:
        """So many seconds ahead of the machine's clock, for everybody within a second."""
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
            "NO_FAKE_STAT": "1",  # files' times are their server's
            "PYTHONPATH": os.pathsep.join(filter(None, [str(_SITE), os.environ.get("PYTHONPATH")])),
        }


def remove_remains() -> None:
    """What libfaketime leaves of killed processes, and stumbles over when their number is used again."""
    for file in Path("/dev/shm").glob("*faketime_*"):
        with suppress(OSError, ValueError):
            if not psutil.pid_exists(int(file.name.rpartition("_")[2])):
                file.unlink()
