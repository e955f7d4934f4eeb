"""The faults. Each is a function that disturbs the stack, and the fault is over when it returns.

Not here: their timing (`storm.py`), and the invariants afterwards (`domains.py`).
"""

import random
import signal
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass

import psutil
import psycopg

from dagster_backfills.engine.controls import Setting, change
from dagster_backfills_tests.chaos import clock
from dagster_backfills_tests.chaos.stack import (
    NATS_PROGRAM,
    Postgres,
    Stack,
    daemon_command,
    run_pids,
)

_OFFSETS = [86_400, -86_400, 3_600, -600]
Strike = Callable[[Stack, random.Random], bool]


@dataclass(frozen=True)
class Fault:
    """`strike` returns whether it hit anything; faults of one `kind` may share a storm. `impossible` says why it
    can't be done on this machine, if so."""

    name: str
    what: str
    strike: Strike
    kind: str
    impossible: Callable[[Postgres], str] = lambda postgres: ""


def _kill(processes: list[psutil.Process], rng: random.Random, most: int = 1) -> bool:
    chosen = rng.sample(processes, min(most, len(processes)))
    for process in chosen:
        with suppress(psutil.NoSuchProcess):
            process.kill()
    return bool(chosen)


def kill_runs(stack: Stack, rng: random.Random) -> bool:
    """Kills runs: usually working ones, sometimes one that is still starting."""
    runs, working = stack.runs(), set[int]()
    with suppress(psycopg.Error), stack.connect() as conn:
        working = set(run_pids(conn, "select run_id from dagster.runs where status = 'STARTED'").values())
    at_work = [process for process in runs if process.pid in working]
    return _kill(at_work if at_work and rng.random() < 0.8 else runs, rng)


def kill_workers(stack: Stack, rng: random.Random) -> bool:
    return _kill(stack.job_workers(), rng)


def kill_code_server(stack: Stack, rng: random.Random) -> bool:
    return stack.services["code_server"].kill() is not None


def kill_code_server_with_runs(stack: Stack, rng: random.Random) -> bool:
    """Like the loss of its machine or container: the process that would report the runs' end is gone, too."""
    hit = stack.services["code_server"].kill() is not None
    runs = stack.runs()
    return _kill(runs, rng, most=len(runs)) or hit


def kill_daemon(stack: Stack, rng: random.Random) -> bool:
    return stack.services["daemon"].kill() is not None


def two_daemons(stack: Stack, rng: random.Random) -> bool:
    """Runs a second daemon on the same instance for a while."""
    if "second_daemon" not in stack.services:
        stack.add("second_daemon", daemon_command(stack.home))
        return True
    time.sleep(rng.uniform(2, 5))
    return False


def _restart(how: signal.Signals) -> Strike:
    def strike(stack: Stack, rng: random.Random) -> bool:
        stack.postgres.stop(how)
        time.sleep(rng.uniform(0, 4))
        stack.postgres.start()
        return True

    return strike


def cut_connections(stack: Stack, rng: random.Random) -> bool:
    """Terminates every other connection to the database, or only those in a transaction."""
    statement = (
        "select count(pg_terminate_backend(pid)) from pg_stat_activity"
        " where datname = current_database() and pid <> pg_backend_pid() and (%s or xact_start is not null)"
    )
    with suppress(psycopg.Error), stack.connect() as conn:
        cut = conn.execute(statement, [rng.random() < 0.5]).fetchone()
        return bool(cut and cut[0])
    return False


def fill_disk(stack: Stack, rng: random.Random) -> bool:
    """Fills the volume of Postgres, and frees it again. Restarts Postgres if it stopped."""
    volume = stack.postgres.volume
    try:
        volume.fill()
        time.sleep(rng.uniform(3, 8))
    finally:
        volume.empty()
    time.sleep(1)
    stack.postgres.start()
    return True


def nats_away(stack: Stack, rng: random.Random) -> bool:
    assert stack.nats is not None and stack.nats.process is not None
    if rng.random() < 0.5:
        stack.nats.process.kill()
    stack.nats.stop()
    time.sleep(rng.uniform(2, 8))
    stack.nats.start()
    return True


def set_clock(stack: Stack, rng: random.Random) -> bool:
    """Sets the clock of everything except Postgres and NATS. It is corrected when the storm is over."""
    assert stack.clock is not None
    stack.set_clock(rng.choice([offset for offset in _OFFSETS if offset != stack.clock.offset]))
    return True


_DECLARED = {
    "training_completions": [
        "training/employee_training_video_completions",
        "training/organization_training_progress",
    ],
    "progress_stats": ["progress/user_progress_stats", "progress/cohort_stats"],
}
_OLDER = """
    select count(*) from pg_stat_activity
    where datname = current_database() and pid <> pg_backend_pid() and xact_start < %s
"""
_BATCHES = "select count(*) from backfill.batches where asset = any(%s)"


def steer(stack: Stack, rng: random.Random) -> bool:
    """Pauses or throttles a backfill, and resumes it. A paused backfill writes nothing."""
    name, assets = rng.choice(list(_DECLARED.items()))
    with stack.connect() as conn:
        if rng.random() < 0.5:
            change(
                conn, name, assets, Setting(rest_seconds=1, rows_per_second=rng.choice([50, 500])), "chaos"
            )
            time.sleep(rng.uniform(3, 8))
            change(conn, name, assets, Setting(rest_seconds=0, rows_per_second=0), "chaos")
            return True
        change(conn, name, assets, Setting(paused=True), "chaos")
        time.sleep(2)  # a run that read the controls just before has begun its batch by now
        (now,) = conn.execute("select clock_timestamp()").fetchone() or (None,)
        while conn.execute(_OLDER, [now]).fetchone() != (0,):
            time.sleep(0.2)
        before = conn.execute(_BATCHES, [assets]).fetchone()
        time.sleep(rng.uniform(3, 8))
        assert conn.execute(_BATCHES, [assets]).fetchone() == before, (
            f"{name} was written while it was paused"
        )
        change(conn, name, assets, Setting(paused=False), "chaos")
    return True


def _no_volume(postgres: Postgres) -> str:
    return "" if postgres.volume.is_own else "no right to mount a small file system here"


def _no_nats(postgres: Postgres) -> str:
    return "" if NATS_PROGRAM else "nats-server is not installed"


def _no_clock(postgres: Postgres) -> str:
    return "" if clock.LIBRARY else "libfaketime is not installed (Debian's package faketime)"


FAULTS = [
    Fault("runs", "SIGKILL of runs", kill_runs, "workers"),
    Fault("workers", "SIGKILL of a queue worker", kill_workers, "workers"),
    Fault("code-server", "SIGKILL of the code server", kill_code_server, "services"),
    Fault(
        "code-machine",
        "SIGKILL of the code server and all runs at once",
        kill_code_server_with_runs,
        "services",
    ),
    Fault("daemon", "SIGKILL of the daemon", kill_daemon, "services"),
    Fault("two-daemons", "two daemons", two_daemons, "services"),
    Fault("fast", "Postgres stopped (fast) and started", _restart(signal.SIGINT), "server"),
    Fault("immediate", "Postgres stopped (immediate) and started", _restart(signal.SIGQUIT), "server"),
    Fault("connections", "connections cut", cut_connections, "server"),
    Fault("disk", "no room in the Postgres volume", fill_disk, "disk", _no_volume),
    Fault("nats", "NATS away", nats_away, "nats", _no_nats),
    Fault("controls", "a backfill paused or throttled, then resumed", steer, "controls"),
    Fault("clock", "clock set (+1 day, -1 day, +1 h, -10 min, correct again)", set_clock, "clock", _no_clock),
]
