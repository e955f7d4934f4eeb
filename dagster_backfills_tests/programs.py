"""Starts the programs that users start, forked from a process that has imported Dagster already.

A forked program has its own environment, working folder, streams and exit code, and imports our modules itself. Tests
of imports or of interrupts start a real interpreter instead.
"""

import atexit
import multiprocessing
import multiprocessing.forkserver
import os
import runpy
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

RUN = [sys.executable, "-m", "dagster", "api"]
SCRIPT = str(Path(sys.executable).parent / "backfills")
# Importing these reads no environment variables and starts no threads.
_LIBRARIES = [
    "dagster",
    "dagster._cli",
    "dagster._cli.api",
    "dagster._daemon.cli",
    "dagster._grpc.server",
    "dagster._core.definitions.antlr_asset_selection.antlr_asset_selection",
    "dagster_postgres",
    "dagster_webserver.cli",
    "psycopg",
    "rich.console",
    "rich.table",
    "sqlglot",
    "typer",
]
_FORKS = multiprocessing.get_context("forkserver")
_FORKS.set_forkserver_preload(_LIBRARIES)


def run(
    command: Sequence[str],
    *,
    env: Mapping[str, str] | None = None,
    cwd: Path | None = None,
    input: str = "",
    timeout: float | None = None,
) -> subprocess.CompletedProcess[str]:
    """Like `subprocess.run(capture_output=True)`, for `backfills …` and `python -m …`."""
    with TemporaryDirectory() as folder:
        streams = [Path(folder, name) for name in ("stdin", "stdout", "stderr")]
        streams[0].write_text(input)
        opened = [os.open(streams[0], os.O_RDONLY)]
        opened += [os.open(stream, os.O_WRONLY | os.O_APPEND | os.O_CREAT) for stream in streams[1:]]
        code = start(command, opened, env=env, cwd=cwd).wait(timeout)
        message, errors = (stream.read_text() for stream in streams[1:])
        return subprocess.CompletedProcess(command, code, message, errors)


@dataclass(frozen=True)
class Program:
    """A program that was started."""

    command: Sequence[str]
    process: BaseProcess

    @property
    def pid(self) -> int:
        assert self.process.pid
        return self.process.pid

    @property
    def returncode(self) -> int | None:
        return self.process.exitcode

    def poll(self) -> int | None:
        return self.process.exitcode

    def wait(self, timeout: float | None = None) -> int:
        """Wait for its exit code. Kills it on a timeout or any other exception."""
        try:
            self.process.join(timeout)
            if self.process.exitcode is None:
                raise subprocess.TimeoutExpired(self.command, timeout or 0)
        finally:
            self.process.kill()
            self.process.join()
        return self.process.exitcode


class Child:
    """A forked run, with the part of the `subprocess.Popen` interface that the command line uses."""

    def __init__(self, program: Program) -> None:
        self.pid, self._program = program.pid, program

    @property
    def returncode(self) -> int | None:
        return self._program.returncode

    def poll(self) -> int | None:
        return self.returncode

    def wait(self, timeout: float | None = None) -> int:
        self._program.process.join(timeout)
        if self.returncode is None:
            raise subprocess.TimeoutExpired(self._program.command, timeout or 0)
        return self.returncode

    def send_signal(self, number: int) -> None:
        if self.poll() is None:
            os.kill(self.pid, number)

    def kill(self) -> None:
        self.send_signal(signal.SIGKILL)


class ForkingPopen(subprocess.Popen):
    """Forks the runs that a program starts; starts anything else normally."""

    def __new__(cls, command: Any, *rest: Any, **options: Any) -> Any:
        if list(command[:4]) != RUN:
            return super().__new__(cls)
        log = options["stdout"].fileno()
        streams = [os.open(os.devnull, os.O_RDONLY), os.dup(log), os.dup(log)]
        return Child(start(command, streams, env=options.get("env"), own_session=True))


def start(
    command: Sequence[str],
    streams: Sequence[int],
    *,
    env: Mapping[str, str] | None = None,
    cwd: Path | None = None,
    own_session: bool = False,
) -> Program:
    """Start a program with these file descriptors as stdin, stdout and stderr. They are closed here.

    own_session: make it a session leader, so that it can be killed with everything that it has started.
    """
    handed = [Connection(stream) for stream in streams]
    environment, folder = dict(os.environ if env is None else env), str(cwd or Path.cwd())
    server = multiprocessing.forkserver._forkserver
    server.ensure_running()
    arguments = (list(command), environment, folder, handed, own_session, server._forkserver_address)
    process = _FORKS.Process(target=_work, args=arguments)
    process.start()
    for each in handed:
        each.close()
    return Program(command, process)


def start_server(command: Sequence[str], log: Path, env: Mapping[str, str], cwd: Path) -> Program:
    """Start one of Dagster's servers in its own session, with its output in `log`."""
    streams = [os.open(os.devnull, os.O_RDONLY)]
    streams += [os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_APPEND) for _ in range(2)]
    return start(command, streams, env=env, cwd=cwd, own_session=True)


def _work(
    command: list[str],
    environment: dict[str, str],
    folder: str,
    streams: list[Connection],
    own_session: bool,
    address: str,
) -> None:
    if own_session:
        os.setsid()
    os.environ.clear()
    os.environ.update(environment)
    time.tzset()
    os.chdir(folder)
    sys.path[:0] = filter(None, environment.get("PYTHONPATH", "").split(os.pathsep))
    for number, stream in enumerate(streams):
        os.dup2(stream.fileno(), number)
        stream.close()
    sys.stdin, sys.stdout, sys.stderr = open(0), open(1, "w"), open(2, "w", buffering=1)  # noqa: SIM115
    # Processes that the program starts with multiprocessing are started normally.
    multiprocessing.set_start_method(None, force=True)
    try:
        if command[0] == SCRIPT:
            from dagster_backfills.cli import main

            # Its runs are forked from the same server.
            server = multiprocessing.forkserver._forkserver
            server._forkserver_address, server.ensure_running = address, lambda: None
            sys.argv, subprocess.Popen = command, ForkingPopen
            main()
        else:
            _run(*command)
    finally:
        atexit._run_exitfuncs()


def _run(program: str, *arguments: str) -> None:
    """Run a script, or what follows `python -m` or `python -c`."""
    sys.argv = [program, *arguments]
    if program != sys.executable:
        runpy.run_path(program, run_name="__main__")
        return
    option, code, *rest = arguments
    if option == "-m":
        sys.argv = [code, *rest]
        runpy.run_module(code, run_name="__main__", alter_sys=True)
    else:
        assert option == "-c", arguments
        sys.argv = ["-c", *rest]
        exec(code, {"__name__": "__main__"})
