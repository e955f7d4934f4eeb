"""Starts the programs that users start, forked from a process that has imported Dagster and most of our modules.

A forked program has its own environment, working folder, streams and exit code. The runs that it starts are forked too.
Tests of imports start a real interpreter instead.
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
from importlib import import_module
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from pathlib import Path
from tempfile import TemporaryDirectory
from types import SimpleNamespace
from typing import Any, TextIO

import pytest
from sqlalchemy import pool

RUN = [sys.executable, "-m", "dagster", "api", "execute_run"]
ROOT = str(Path(__file__).resolve().parents[1])
SCRIPT = str(Path(sys.executable).parent / "backfills")
_FORKS = multiprocessing.get_context("forkserver")
_FORKS.set_forkserver_preload(["dagster_backfills_tests.preloaded"])


class _Kept(pool.QueuePool):
    """Keeps sessions. Otherwise a run opens ninety for Dagster's storage, one after the other."""

    def __init__(self, creator: Any, **options: Any) -> None:
        super().__init__(creator, **options, pool_size=2, max_overflow=-1, pre_ping=True)


class Program:
    """A program that was started, with the part of the `subprocess.Popen` interface that the command line uses.

    stdout, stderr: what it prints, if it was started to be read.
    """

    stdout: TextIO
    stderr: TextIO

    def __init__(self, command: Sequence[str], process: BaseProcess) -> None:
        assert process.pid
        self.args, self.pid, self._process = command, process.pid, process

    @property
    def returncode(self) -> int | None:
        return self._process.exitcode

    def poll(self) -> int | None:
        return self.returncode

    def wait(self, timeout: float | None = None) -> int:
        self._process.join(timeout)
        if self.returncode is None:
            raise subprocess.TimeoutExpired(self.args, timeout or 0)
        return self.returncode

    def communicate(self) -> tuple[str, str]:
        """Wait for its end. Returns what was not read yet."""
        with self.stdout, self.stderr:
            outputs = self.stdout.read(), self.stderr.read()
        self.wait()
        return outputs

    def send_signal(self, number: int) -> None:
        if self.poll() is None:
            os.kill(self.pid, number)

    def kill(self) -> None:
        self.send_signal(signal.SIGKILL)


def run(
    command: Sequence[str],
    *,
    env: Mapping[str, str] | None = None,
    cwd: Path | None = None,
    input: str = "",
    timeout: float | None = None,
) -> subprocess.CompletedProcess[str]:
    """Like `subprocess.run(capture_output=True)`, for scripts and `python -m …`."""
    with TemporaryDirectory() as folder:
        streams = [Path(folder, name) for name in ("stdin", "stdout", "stderr")]
        streams[0].write_text(input)
        opened = [os.open(streams[0], os.O_RDONLY)]
        opened += [os.open(stream, os.O_WRONLY | os.O_APPEND | os.O_CREAT) for stream in streams[1:]]
        program = start(command, opened, env=env, cwd=cwd)
        try:
            code = program.wait(timeout)
        finally:
            program.kill()
        output, errors = (stream.read_text() for stream in streams[1:])
        return subprocess.CompletedProcess(command, code, output, errors)


def start_reading(
    command: Sequence[str], *, env: Mapping[str, str] | None = None, cwd: Path | None = None
) -> Program:
    """Start a program in its own session. Its `stdout` and `stderr` are pipes."""
    pipes = [os.pipe() for _ in range(2)]
    streams = [os.open(os.devnull, os.O_RDONLY), *(write for _, write in pipes)]
    program = start(command, streams, env=env, cwd=cwd, own_session=True)
    program.stdout, program.stderr = (os.fdopen(read) for read, _ in pipes)
    return program


class ForkingPopen(subprocess.Popen):
    """Forks the runs that a program starts; starts anything else normally."""

    def __new__(cls, command: Any, *rest: Any, **options: Any) -> Any:
        if list(command[: len(RUN)]) != RUN:
            return super().__new__(cls)
        log = options["stdout"].fileno()
        streams = [os.open(os.devnull, os.O_RDONLY), os.dup(log), os.dup(log)]
        return start(command, streams, env=options.get("env"), own_session=True)


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
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", ROOT)  # from which a new server imports what it preloads
        server.ensure_running()
    arguments = (list(command), environment, folder, handed, own_session, server._forkserver_address)
    process = _FORKS.Process(target=_work, args=arguments, daemon=True)
    process.start()
    for each in handed:
        each.close()
    return Program(command, process)


def start_server(command: Sequence[str], log: Path, env: Mapping[str, str], cwd: Path) -> Program:
    """Start one of Dagster's servers in its own session, with its output at the end of `log`."""
    streams = [os.open(os.devnull, os.O_RDONLY)]
    streams += [os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND) for _ in range(2)]
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
    signal.signal(signal.SIGINT, signal.default_int_handler)  # whoever started the tests may have ignored it
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
    multiprocessing.current_process()._config["daemon"] = False  # which may not start any
    # The runs that it starts are forked from the same server.
    server = multiprocessing.forkserver._forkserver
    server._forkserver_address, server.ensure_running = address, lambda: None
    subprocess.Popen = ForkingPopen
    if command[: len(RUN)] == RUN:
        for storage in (
            "event_log.event_log",
            "run_storage.run_storage",
            "schedule_storage.schedule_storage",
        ):
            import_module(f"dagster_postgres.{storage}").db_pool = SimpleNamespace(NullPool=_Kept)  # type: ignore[attr-defined]
    try:
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
