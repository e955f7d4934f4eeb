"""A short storm with one strike of each kind of fault, on the real stack. `make chaos` has the long ones."""

import pytest

from dagster_backfills_tests.chaos.faults import FAULTS
from dagster_backfills_tests.chaos.storm import Ground, Size, storm


@pytest.mark.e2e
@pytest.mark.timeout(900)
def test_one_strike_of_each_kind_leaves_everything_whole(tmp_path_factory, subtests_of_faults):
    ground = Ground.prepare(tmp_path_factory.mktemp("chaos"))
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
def subtests_of_faults():
    """The faults that this machine allows, and why it does not allow the others."""

    def sorted_out(postgres):
        possible = [fault for fault in FAULTS if not fault.impossible(postgres)]
        return possible, [f"{f.name}: {f.impossible(postgres)}" for f in FAULTS if f.impossible(postgres)]

    return sorted_out
