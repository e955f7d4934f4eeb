"""A slow run of one scoring asset in its own process, for tests that kill it or run beside it."""

import sys
from datetime import date

import dagster as dg

from dagster_backfills_tests.domains.scoring.conftest import ALL, resources_of


def main(url: str, asset: str, day: str) -> None:
    """One member per batch, with a pause after each."""
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
