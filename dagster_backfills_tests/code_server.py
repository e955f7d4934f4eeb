"""`dagster api grpc` that forks its runs from a process that has loaded Dagster and the code, instead of spawning them.

Each run is still a separate process in the code server's group, with its environment and log. Tests of how a run's
process starts use the real code server.
"""

import multiprocessing
import os
import sys
from collections.abc import Sequence
from importlib import import_module
from multiprocessing import forkserver, util
from typing import Any

from dagster._cli import main


def _fork(_: str, arguments: Sequence[str], passed: Sequence[int]) -> int:
    """Replaces starting a new interpreter: fork this one, and close its open files."""
    pid = os.fork()
    if pid:
        return pid
    try:
        kept = sorted({0, 1, 2, *passed})
        for below, above in zip(kept, [*kept[1:], os.sysconf("SC_OPEN_MAX")], strict=True):
            os.closerange(below + 1, above)
        exec(arguments[-1], {})
    finally:
        os._exit(0)


def fork_runs(module: str) -> None:
    """From now on, fork what this process would spawn."""
    import_module(module)
    context = multiprocessing.get_context
    util.spawnv_passfds = _fork  # type: ignore[attr-defined]
    multiprocessing.set_forkserver_preload([])
    forkserver.ensure_running()

    def forked(method: str | None = None) -> Any:
        return context("forkserver" if method == "spawn" else method)

    multiprocessing.get_context = forked  # type: ignore[assignment]


if __name__ == "__main__":
    fork_runs(sys.argv[sys.argv.index("-m") + 1])
    main()
