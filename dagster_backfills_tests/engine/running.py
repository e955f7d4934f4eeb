"""A small database for engine tests: a source table of parts with units, and two tables computed from it."""

import os
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Any
from uuid import uuid4

import psycopg

from dagster_backfills.engine.model import Compute, Query, Target, Write
from dagster_backfills.engine.outcome import Outcome
from dagster_backfills.engine.run_identity import RunIdentity
from dagster_backfills.engine.runner import Runner
from dagster_backfills.engine.settings import EngineSettings
from dagster_backfills.engine.table.address import ByValue
from dagster_backfills_tests.programs import start

SCHEMA = """
create schema t;
create table t.source (part text, unit text, v text not null, primary key (part, unit));
create table t.units (part text not null, unit text primary key, v int not null check (v < 1000));
create index on t.units (part);
create table t.parts (part text primary key, total int not null, sum int not null check (sum >= 0));
"""
UNITS = """
select s.part, s.unit, s.v::int as v from t.source as s
where s.part = any(%(partition_keys)s::text[])
    and (%(unit_keys)s::text[] is null or s.unit = any(%(unit_keys)s::text[]))
"""
PARTS = """
select k.part, count(u.unit) as total, coalesce(sum(u.v), 0) as sum
from unnest(%(partition_keys)s::text[]) as k (part) left join t.units as u on u.part = k.part group by k.part
"""
DUE = "select part as partition, unit from t.source where part = any(%(partition_keys)s::text[])"

by_unit = Write(Target("t/units", "part", unit="unit"), Query(UNITS), units=Query(DUE))
by_part = Write(Target("t/units", "part"), Query(UNITS))
totals = Write(Target("t/parts", "part"), Query(PARTS))


def computed(before: Callable[[psycopg.Connection, Sequence[str], Sequence[str] | None], None]) -> Write:
    """A write of units, computed in Python. `before` is called in each batch's transaction, before its statement."""

    def function(conn: psycopg.Connection, keys: Sequence[str], units: Sequence[str] | None) -> Any:
        import pandas as pd

        before(conn, keys, units)
        found = conn.execute(UNITS, {"partition_keys": list(keys), "unit_keys": units}).fetchall()
        return pd.DataFrame(found, columns=["part", "unit", "v"])

    return Write(Target("t/units", "part", unit="unit"), Compute(function), units=Query(DUE))


def fill(conn: psycopg.Connection, parts: int, units: int) -> list[str]:
    """Creates the tables and parts `p001`…, each with its units. Returns the parts."""
    conn.execute(SCHEMA)
    conn.execute(
        "insert into t.source select format('p%%s', lpad(p::text, 3, '0')),"
        " format('p%%s-u%%s', lpad(p::text, 3, '0'), lpad(u::text, 4, '0')), u"
        " from generate_series(1, %s) p, generate_series(1, %s) u",
        [parts, units],
    )
    return [f"p{n:03}" for n in range(1, parts + 1)]


@contextmanager
def opened(url: str) -> Iterator[psycopg.Connection]:
    with psycopg.connect(url) as conn:
        yield conn


def addressed(writes: Sequence[Write]) -> list[Write]:
    """The writes, each with an address. By default, the column `part` stores the partition."""
    return [replace(write, address=write.address or ByValue("part", "text")) for write in writes]


def run(
    url: str,
    writes: Sequence[Write],
    keys: Sequence[str],
    identity: RunIdentity | None = None,
    connect: Any = None,
    log: Callable[[str], None] = lambda line: None,
    **settings: Any,
) -> Outcome:
    """Run the engine to its end. Batches keep their size unless the settings say otherwise."""
    runner = Runner(
        connect=connect or (lambda: opened(url)),
        run_identity=identity or RunIdentity(str(uuid4())),
        settings=EngineSettings(**{"target_seconds": 0, **settings}),
        log=log,
    )
    for _ in runner.run(addressed(writes), keys):
        pass
    return runner.outcome


class InThread:
    """A run that goes on beside the test."""

    def __init__(self, *args: Any, **options: Any) -> None:
        self.outcome: Outcome | None = None
        self.error: BaseException | None = None
        self._thread = threading.Thread(target=self._work, args=(args, options), daemon=True)
        self._thread.start()

    def _work(self, args: Any, options: Any) -> None:
        try:
            self.outcome = run(*args, **options)
        except BaseException as error:
            self.error = error

    def result(self) -> Outcome:
        self._thread.join(60)
        assert not self._thread.is_alive(), "the run hangs"
        if self.error is not None:
            raise self.error
        assert self.outcome is not None
        return self.outcome


def wait_until_blocked(conn: psycopg.Connection, sessions: int = 1) -> None:
    """Until that many sessions of this database wait for a lock."""
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        row = conn.execute(
            "select count(*) from pg_stat_activity where datname = current_database() and wait_event_type = 'Lock'"
        ).fetchone()
        if row and row[0] >= sessions:
            return
        time.sleep(0.02)
    raise AssertionError("nobody waits for a lock")


def units_of(conn: psycopg.Connection) -> dict[str, int]:
    return dict(conn.execute("select unit, v from t.units").fetchall())


def ledger_of(conn: psycopg.Connection) -> list[tuple[Any, ...]]:
    """The open entries: asset, partition, unit, error class, message, attempts."""
    return conn.execute(
        "select asset, partition, unit, error_class, message, attempts from backfill.failures"
        " where resolved_at is null order by 1, 2, 3"
    ).fetchall()


def killed(worker: str, arguments: Sequence[str], seconds: float | None) -> bool:
    """Start a process of this folder and kill it so long after it is ready. True where it had not finished by then."""
    command = [sys.executable, "-m", f"{__package__}.{worker}", *arguments]
    read, write = os.pipe()
    started = start(command, [os.open(os.devnull, os.O_RDONLY), write, os.dup(2)])
    with os.fdopen(read) as pipe:
        assert pipe.readline() == "ready\n"
        if seconds is not None:
            time.sleep(seconds)
            started.kill()
        finished = pipe.read() == "done\n"
    started.wait()
    return not finished
