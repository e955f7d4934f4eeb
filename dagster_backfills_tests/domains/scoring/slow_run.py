"""A run of one scoring asset in a process of its own, slow enough to be killed or met. See `test_failures.py`."""

import sys
from datetime import date

import dagster as dg

from dagster_backfills_tests.domains.scoring.conftest import ALL, resources_of


def main(url: str, asset: str, day: str) -> None:
    """One member a batch, with a rest after each."""
    chosen = next(a for a in ALL if a.key.path[-1] == asset)
    dg.materialize(
        [chosen],
        partition_key=date.fromisoformat(day).isoformat(),
        resources=resources_of(
            url, batch_members=1, max_batch_members=1, batch_seconds=0, batch_delay_seconds=0.2
        ),
    )


if __name__ == "__main__":
    main(*sys.argv[1:])
