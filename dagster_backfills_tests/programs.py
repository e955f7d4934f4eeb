"""The programs that users start, each in a process of its own that need not import Dagster first: it is forked.

Environment, folder, streams and exit code are the process's own, and no module of ours is loaded before it begins. Not
for a test of what a program imports, or of one that is interrupted: such a test starts a real one.
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
# They read nothing of the environment when they are imported, and start no thread.
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
    """As `subprocess.run` with `capture_output`, for `backfills …` and `python -m …`."""
    with TemporaryDirectory() as folder:
        streams = [Path(folder, name) for name in ("stdin", "stdout", "stderr")]
        streams[0].write_text(input)
        opened = [os.open(streams[0], os.O_RDONLY)]
        opened += [os.open(stream, os.O_WRONLY | os.O_APPEND | os.O_CREAT) for stream in streams[1:]]
        code = start(command, opened, env=env, cwd=cwd).wait(timeout)
        said, errors = (stream.read_text() for stream in streams[1:])
        return subprocess.CompletedProcess(command, code, said, errors)


@dataclass(frozen=True)
class Program:
    """One that was started."""

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
        """Its exit code. It is killed if it takes longer, or the wait ends otherwise."""
        try:
            self.process.join(timeout)
            if self.process.exitcode is None:
                raise subprocess.TimeoutExpired(self.command, timeout or 0)
        finally:
            self.process.kill()
            self.process.join()
        return self.process.exitcode


class Child:
    """A run that a program has started, in place of what `subprocess.Popen` gives."""

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


class _Popen(subprocess.Popen):
    """Runs that a program starts are forked as well; anything else is started as ever."""

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
    """Start it on these files as its standard input, output and errors, which become its own.

    `own_session`: it leads a session, so that it can be ended with all that it has started.
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
    """Start one of Dagster's servers, which writes to `log`, in a session of its own."""
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
    # What the program starts by itself it starts as ever.
    multiprocessing.set_start_method(None, force=True)
    try:
        if command[0] == SCRIPT:
            from dagster_backfills.cli import main

            # Its runs are forked from where it was.
            server = multiprocessing.forkserver._forkserver
            server._forkserver_address, server.ensure_running = address, lambda: None
            sys.argv, subprocess.Popen = command, _Popen
            main()
        else:
            _run(*command)
    finally:
        atexit._run_exitfuncs()


def _run(program: str, *arguments: str) -> None:
    """A module or a text that the interpreter is given, or a script."""
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
