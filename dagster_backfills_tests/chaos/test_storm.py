"""A short storm on the real stack: a killed run, cut connections, a paused backfill; then every invariant is checked.

`make chaos` runs more of them.
"""

import tempfile
from pathlib import Path

import pytest

from dagster_backfills_tests.chaos.faults import FAULTS
from dagster_backfills_tests.chaos.storm import Ground, Size, storm

CHEAP = ("runs", "connections", "controls")


@pytest.mark.e2e
@pytest.mark.timeout(600)
def test_everything_recovers_from_a_killed_run_cut_connections_and_a_pause(folder):
    ground = Ground.prepare(folder, small=True)
    try:
        faults = [fault for fault in FAULTS if fault.name in CHEAP]
        size = Size(seconds=0, pause=(1, 2), files=1, rows=300)
        report = storm(ground, faults, seed=7, size=size, forked=True)
        assert report.broken == {}
        assert set(report.strikes) == set(CHEAP)
        assert report.strikes["runs"] == 1
        assert report.commands == []  # all domains recovered by themselves
    finally:
        ground.delete()


@pytest.fixture
def folder():
    """A folder that Postgres can enter: under root it runs as another user, and pytest's folders are private."""
    with tempfile.TemporaryDirectory(prefix="backfills_chaos_", ignore_cleanup_errors=True) as made:
        yield Path(made)
