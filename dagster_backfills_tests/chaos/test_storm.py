"""A short storm with one strike of each kind of fault, on the real stack. `make chaos` has the long ones."""

import tempfile
from pathlib import Path

import pytest

from dagster_backfills_tests.chaos.faults import FAULTS
from dagster_backfills_tests.chaos.storm import Ground, Size, storm


@pytest.mark.chaos
@pytest.mark.timeout(900)
def test_one_strike_of_each_kind_leaves_everything_whole(folder, subtests_of_faults):
    ground = Ground.prepare(folder)
    try:
        possible, skipped = subtests_of_faults(ground.postgres)
        report = storm(ground, possible, seed=7, size=Size(seconds=0, pause=(0.5, 2), files=1, rows=400))
        assert report.broken == {}
        assert set(report.strikes) == {fault.name for fault in possible}
        if skipped:
            pytest.skip(f"everything held; not tried: {'; '.join(skipped)}")
    finally:
        ground.delete()


@pytest.fixture
def folder():
    """One that Postgres can enter, which is another user where this one is root; pytest's own are closed to others."""
    with tempfile.TemporaryDirectory(prefix="backfills_chaos_", ignore_cleanup_errors=True) as made:
        yield Path(made)


@pytest.fixture
def subtests_of_faults():
    """The faults that this machine allows, and why it does not allow the others."""

    def sorted_out(postgres):
        possible = [fault for fault in FAULTS if not fault.impossible(postgres)]
        return possible, [f"{f.name}: {f.impossible(postgres)}" for f in FAULTS if f.impossible(postgres)]

    return sorted_out
