"""The programs that users start, each in a process of its own that need not import Dagster first: it is forked.

Environment, folder, streams and exit code are the process's own, and no module of ours is loaded before it begins. Not
for a test of what a program imports, or of one that is interrupted: such a test starts a real one.
"""

import atexit
import multiprocessing
import os
import runpy
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

SCRIPT = str(Path(sys.executable).parent / "backfills")
# They read nothing of the environment when they are imported, and start no thread.
_LIBRARIES = [
    "dagster",
    "dagster._cli.api",
    "dagster_postgres",
    "psycopg",
    "rich.console",
    "rich.table",
    "typer",
]
_FORKS = multiprocessing.get_context("forkserver")
_FORKS.set_forkserver_preload(_LIBRARIES)


def run(
    command: Sequence[str],
    *,
    env: Mapping[str, str] | None = None,
    input: str = "",
    timeout: float | None = None,
) -> subprocess.CompletedProcess[str]:
    """As `subprocess.run` with `capture_output`, for `backfills …` and `python -m …`."""
    with TemporaryDirectory() as folder:
        streams = [str(Path(folder, name)) for name in ("stdin", "stdout", "stderr")]
        Path(streams[0]).write_text(input)
        environment = dict(os.environ if env is None else env)
        process = _FORKS.Process(target=_work, args=(list(command), environment, str(Path.cwd()), streams))
        process.start()
        try:
            process.join(timeout)
            if process.exitcode is None:
                raise subprocess.TimeoutExpired(command, timeout or 0)
        finally:
            process.kill()
            process.join()
        said, errors = (Path(stream).read_text() for stream in streams[1:])
        return subprocess.CompletedProcess(command, process.exitcode, said, errors)


def _work(command: list[str], environment: dict[str, str], folder: str, streams: list[str]) -> None:
    os.environ.clear()
    os.environ.update(environment)
    time.tzset()
    os.chdir(folder)
    for number, stream in enumerate(streams):
        opened = os.open(stream, os.O_WRONLY | os.O_APPEND | os.O_CREAT if number else os.O_RDONLY)
        os.dup2(opened, number)
        os.close(opened)
    sys.stdin, sys.stdout, sys.stderr = open(0), open(1, "w"), open(2, "w", buffering=1)  # noqa: SIM115
    # What the program starts by itself it starts as ever.
    multiprocessing.set_start_method(None, force=True)
    try:
        if command[0] == SCRIPT:
            from dagster_backfills.cli import main

            sys.argv = command
            main()
        else:
            python, option, module, *arguments = command
            assert (python, option) == (sys.executable, "-m"), command
            sys.argv = [module, *arguments]
            runpy.run_module(module, run_name="__main__", alter_sys=True)
    finally:
        atexit._run_exitfuncs()
