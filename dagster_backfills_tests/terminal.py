"""Runs a command on a pseudo-terminal of a given width, as a person would."""

import fcntl
import os
import pty
import re
import struct
import subprocess
import termios
from collections.abc import Mapping
from pathlib import Path
from signal import SIGINT

from dagster_backfills_tests.programs import SCRIPT, Program, start


def bare(text: str) -> str:
    """The text without escape sequences."""
    return re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", text)


def on_a_terminal(
    width: int,
    *command: str,
    env: Mapping[str, str] | None = None,
    cwd: Path | None = None,
    answer: str = "",
    endless: bool = False,
) -> tuple[int, str]:
    """Returns the exit code and the output.

    answer: typed in advance. endless: the command does not end by itself; interrupt it once it shows something.
    """
    parent, child = pty.openpty()
    fcntl.ioctl(child, termios.TIOCSWINSZ, struct.pack("HHHH", 24, width, 0, 0))
    _type_unseen(child)
    variables = {
        name: value for name, value in (env or os.environ).items() if name not in ("COLUMNS", "LINES")
    }
    variables |= {"TERM": "xterm", "NO_COLOR": "1"}
    process: Program | subprocess.Popen[bytes]
    if command[0] == SCRIPT:
        process = start(command, [os.dup(child) for _ in range(3)], env=variables, cwd=cwd)
    else:
        process = subprocess.Popen(
            command, stdin=child, stdout=child, stderr=child, cwd=cwd, env=variables, start_new_session=True
        )
    os.close(child)
    os.write(parent, answer.encode())
    shown = b""
    while True:
        try:
            shown += os.read(parent, 65536)
        except OSError:  # the terminal is closed
            break
        if endless and re.search(r"\w{3}", bare(shown.decode(errors="ignore"))):
            os.kill(process.pid, SIGINT)
            endless = False
    os.close(parent)
    # An interrupt may split a character.
    return process.wait(), bare(shown.decode(errors="replace"))


def _type_unseen(terminal: int) -> None:
    """Turns echo off, because the position of echoed input would depend on when the command reads it."""
    settings = termios.tcgetattr(terminal)
    settings[3] &= ~termios.ECHO
    termios.tcsetattr(terminal, termios.TCSANOW, settings)
