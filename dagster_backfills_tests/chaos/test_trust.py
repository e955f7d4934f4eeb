"""Plan, undo and controls keep their promises while the server stops, crashes or runs out of disk space."""

import signal
import tempfile
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psycopg
import pytest

from dagster_backfills.engine import audit
from dagster_backfills.engine.controls import Setting, change, read
from dagster_backfills.engine.run_identity import RunIdentity
from dagster_backfills.engine.runner import Runner
from dagster_backfills.engine.settings import EngineSettings
from dagster_backfills.engine.undo import find, undo
from dagster_backfills.postgres.migrations import apply_migrations
from dagster_backfills_tests.chaos.stack import Postgres
from dagster_backfills_tests.engine.running import by_unit, computed, fill, opened, run, totals
from dagster_backfills_tests.engine.test_plan import EVERYTHING, planned
from dagster_backfills_tests.engine.undoing import tables

pytestmark = [pytest.mark.programs, pytest.mark.timeout(600)]


@pytest.fixture(scope="module")
def postgres() -> Iterator[Postgres]:
    """A separate server, whose volume can be filled if this machine allows that."""
    with tempfile.TemporaryDirectory(prefix="backfills_trust_", ignore_cleanup_errors=True) as folder:
        server = Postgres(Path(folder) / "server")
        server.start()
        yield server
        server.delete()


@pytest.fixture
def url(postgres: Postgres) -> Iterator[str]:
    with psycopg.connect(postgres.url("postgres"), autocommit=True) as conn:
        conn.execute("create database trust")
    apply_migrations(postgres.url("trust"))
    yield postgres.url("trust")
    postgres.drop("trust")


@dataclass
class Strike:
    """A single fault: the server restarts, or has no disk space for three seconds."""

    postgres: Postgres
    kind: str
    struck: bool = False
    over: threading.Event = field(default_factory=threading.Event)

    def __call__(self) -> None:
        if self.struck:
            return
        self.struck = True
        if self.kind == "disk":
            self.postgres.volume.fill()
            threading.Thread(target=self._make_room).start()
        else:
            self.postgres.stop(signal.SIGINT if self.kind == "fast" else signal.SIGQUIT)
            self.postgres.start()
            self.over.set()

    def _make_room(self) -> None:
        time.sleep(3)
        self.postgres.volume.empty()
        self.postgres.start()
        self.over.set()

    def calm(self) -> None:
        """Waits until the fault is over. It must have happened."""
        assert self.struck and self.over.wait(60)


@pytest.fixture(params=["fast", "immediate", "disk"])
def strike(request: pytest.FixtureRequest, postgres: Postgres) -> Strike:
    if request.param == "disk" and not postgres.volume.is_own:
        pytest.skip("no right to mount a small file system here")
    return Strike(postgres, request.param)


def test_a_fault_during_a_plan_leaves_nothing_behind(url: str, strike: Strike) -> None:
    with psycopg.connect(url, autocommit=True) as conn:
        keys = fill(conn, parts=6, units=400)
        before = conn.execute(EVERYTHING).fetchone()

    def striking(connection: Any, part_keys: Any, units: Any) -> None:
        if "p003" in part_keys:
            strike()

    try:
        report = planned(url, [computed(striking), totals], keys, batch_units=400)
    except psycopg.Error:
        report = None  # the error says so, and the backfill is planned again
    strike.calm()
    with psycopg.connect(url) as conn:
        assert conn.execute(EVERYTHING).fetchone() == before
    if report is None:
        report = planned(url, [by_unit, totals], keys)
    assert report.total().inserted == 6 * 400 + 6


def test_an_undo_with_a_fault_ends_like_an_undisturbed_one(url: str, strike: Strike) -> None:
    with psycopg.connect(url, autocommit=True) as conn:
        keys = fill(conn, parts=12, units=300)
        conn.execute("insert into t.units values ('p002', 'p002-u0001', 7)")
        before = tables(conn)
    run(url, [by_unit, totals], keys, RunIdentity("written"))
    tries = 0
    while True:
        tries += 1
        try:
            with opened(url) as conn:
                undoing = find(conn, "written")
            identity = RunIdentity(f"undo-{tries}", root_run_id="undo", resumes=True, started_by="olga")
            settings = EngineSettings(target_seconds=0, batch_units=300)
            runner = Runner(lambda: opened(url), identity, settings)
            for _ in undo(runner, undoing):
                strike()
            if not runner.outcome.failed and not runner.outcome.unit_failures:
                break
        except psycopg.Error:
            strike.calm()  # a person, or Dagster's retry, tries again
        assert tries < 20
    strike.calm()
    with psycopg.connect(url) as conn:
        assert tables(conn) == before
        asked = [entry for entry in audit.latest(conn, 100) if entry["action"] == "undo"]
        assert asked[0]["who"] == "olga" and 1 <= len(asked) <= tries
        accounted = conn.execute(
            "select sum(rows_deleted), sum(rows_updated), sum(rows_unchanged) from backfill.batches"
            " join backfill.runs using (run_id, step) where root_run_id = 'undo' and asset = 't/units'"
        ).fetchone()
    assert accounted == (12 * 300 - 1, 1, 0)


def test_a_control_is_set_together_with_its_audit_entry_or_not_at_all(url: str, strike: Strike) -> None:
    with psycopg.connect(url, autocommit=False) as conn:
        change(conn, "parts", ["t/parts"], Setting(rest_seconds=1), "olga")
        strike()
        try:
            change(conn, "parts", ["t/parts"], Setting(paused=True), "olga")
            was_set = True
        except psycopg.Error:
            was_set = False
    strike.calm()
    with psycopg.connect(url) as conn:
        (control,) = read(conn, ["t/parts"])
        noted = [entry["detail"] for entry in audit.latest(conn, 10)]
    assert (control.rest_seconds, control.paused) == (1, was_set)
    assert noted == ["paused = True", "rest_seconds = 1"][not was_set :]
