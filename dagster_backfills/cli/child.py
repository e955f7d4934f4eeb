"""Child processes in their own session. Ctrl-C reaches only the command, which then stops the child."""

import os
import signal
import subprocess
import time
from collections.abc import Sequence
from contextlib import suppress
from typing import Any


def start_child(command: Sequence[str], **options: Any) -> subprocess.Popen[bytes]:
    """Start `command` with an empty stdin and SIGINT enabled, even if this process ignores SIGINT."""
    return subprocess.Popen(
        command, stdin=subprocess.DEVNULL, start_new_session=True, preexec_fn=_listen_to_interrupts, **options
    )


def interrupt_child(child: subprocess.Popen[bytes], timeout: float) -> None:
    """Send SIGINT and wait up to `timeout` seconds for the child to end."""
    with suppress(ProcessLookupError, subprocess.TimeoutExpired):
        child.send_signal(signal.SIGINT)
        child.wait(timeout)


def end_session_of(child: subprocess.Popen[bytes], *numbers: int) -> None:
    """Send each signal to the child's session, ten seconds apart, until no process is left."""
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
