"""A process that a command starts, in a session of its own. Ctrl-C is for the command alone, which ends the other."""

import os
import signal
import subprocess
import time
from collections.abc import Sequence
from contextlib import suppress
from typing import Any


def start_child(command: Sequence[str], **options: Any) -> subprocess.Popen[bytes]:
    """Start `command` with an empty stdin, open to SIGINT whatever this process does about it."""
    return subprocess.Popen(
        command, stdin=subprocess.DEVNULL, start_new_session=True, preexec_fn=_listen_to_interrupts, **options
    )


def interrupt_child(child: subprocess.Popen[bytes], patience: float) -> None:
    """Tell it to end in good order, and wait so many seconds for it."""
    with suppress(ProcessLookupError, subprocess.TimeoutExpired):
        child.send_signal(signal.SIGINT)
        child.wait(patience)


def end_session_of(child: subprocess.Popen[bytes], *numbers: int) -> None:
    """Send each signal to whatever is left of its session, until nothing is, ten seconds apart."""
    for number in numbers:
        deadline = time.monotonic() + 10
        while time.monotonic() < deadline:
            try:
                os.killpg(child.pid, number)
            except ProcessLookupError:
                return
            number = 0
            child.poll()
            time.sleep(0.1)


def _listen_to_interrupts() -> None:
    # Shells start background jobs with SIGINT ignored, and children inherit that.
    signal.signal(signal.SIGINT, signal.SIG_DFL)
