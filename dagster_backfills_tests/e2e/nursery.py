"""Forks programs from a process that has imported Dagster, in another virtual environment than that of the tests."""

import json
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, cast

# Forks a program for each line of its input and prints its process ID, or how a process has ended.
_FORKS = """import gc, json, os, runpy, sys
import dagster._cli.api, dagster._daemon.cli, dagster_dg_cli.cli, dagster_postgres
import dagster_webserver.cli, psycopg, rich.console, typer
gc.collect()
gc.freeze()
for line in sys.stdin:
    asked = json.loads(line)
    if "pid" in asked:
        pid, status = os.waitpid(asked["pid"], 0 if asked["wait"] else os.WNOHANG)
        answer = os.waitstatus_to_exitcode(status) if pid else None
    elif (answer := os.fork()) == 0:
        break
    print(json.dumps(answer), flush=True)
else:
    sys.exit()
os.setsid()
for number, file in enumerate([os.devnull, asked["output"], asked["output"]]):
    os.dup2(os.open(file, os.O_RDWR | os.O_APPEND | os.O_CREAT), number)
sys.stdin, sys.argv = open(0), asked["command"]
if sys.argv[0] == sys.executable:
    os.execv(sys.argv[0], sys.argv)
sys.path[0] = os.path.dirname(sys.argv[0])
runpy.run_path(sys.argv[0], run_name="__main__")
"""


class Nursery:
    """A context: its programs have the given interpreter, environment and working folder."""

    def __init__(self, python: Path, environment: Mapping[str, str], folder: Path) -> None:
        self._command, self._environment, self._folder = [str(python), "-c", _FORKS], environment, folder

    def __enter__(self) -> "Nursery":
        self._process = subprocess.Popen(
            self._command,
            env=self._environment,
            cwd=self._folder,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        return self

    def __exit__(self, *_: object) -> None:
        self._process.communicate()

    def ask(self, **what: Any) -> Any:
        stdin, stdout = cast(IO[str], self._process.stdin), cast(IO[str], self._process.stdout)
        stdin.write(json.dumps(what) + "\n")
        stdin.flush()
        return json.loads(stdout.readline())

    def start(self, command: Sequence[str], output: Path) -> "Started":
        """Start a script, or the interpreter, in its own session. Its output is appended to a file."""
        return Started(self, self.ask(command=command, output=str(output)))


@dataclass
class Started:
    """A program that was started, and its exit code once that is known."""

    nursery: Nursery
    pid: int
    returncode: int | None = None

    def poll(self) -> int | None:
        return self.wait(False)

    def wait(self, until_it_ends: bool = True) -> int | None:
        if self.returncode is None:
            self.returncode = self.nursery.ask(pid=self.pid, wait=until_it_ends)
        return self.returncode
