"""A lock between processes of one machine. The kernel releases it when its holder dies."""

import fcntl
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from dagster_backfills.errors import NotUsableError


class HeldElsewhereError(NotUsableError):
    """Another process holds the lock. `pid` is its process ID, or None if unknown."""

    def __init__(self, path: Path, pid: int | None) -> None:
        super().__init__(f"Process {pid or '(unknown)'} holds the lock {path}.", "Stop it if it hangs.")
        self.pid = pid


@contextmanager
def locked_file(path: Path, patience: float = 0) -> Iterator[None]:
    """Hold the lock on `path`. Raises HeldElsewhereError if it is not free within `patience` seconds."""
    path.parent.mkdir(parents=True, exist_ok=True)
    deadline = time.monotonic() + patience
    with path.open("a+") as lock:
        while True:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if time.monotonic() > deadline:
                    raise HeldElsewhereError(path, _holder(path)) from None
                time.sleep(0.05)
        lock.truncate(0)
        lock.write(str(os.getpid()))
        lock.flush()
        yield


def lock_holder(path: Path) -> int | None:
    """The process ID of the current lock holder, if any. Does not change the file."""
    try:
        with path.open() as lock:
            fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
            return None
    except FileNotFoundError:
        return None
    except BlockingIOError:
        return _holder(path)


def _holder(path: Path) -> int | None:
    with suppress(ValueError, OSError):
        return int(path.read_text())
    return None
