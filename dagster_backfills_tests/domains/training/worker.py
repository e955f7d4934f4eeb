"""Fills all organizations in small batches in its own process, for tests that kill it."""

import sys

import dagster as dg

from dagster_backfills.components.refresh import build_job
from dagster_backfills.dagster.io_manager import PostgresIOManager
from dagster_backfills.dagster.resource import PostgresResource
from dagster_backfills.defs.training.declared import TRAINING


def main(url: str) -> None:
    postgres = PostgresResource(url=url)
    manager = PostgresIOManager(postgres=postgres, batch_units=1, target_seconds=0)
    with dg.DagsterInstance.ephemeral() as instance:
        result = build_job(TRAINING).execute_in_process(
            run_config={"which": "due"},
            instance=instance,
            resources={"postgres": postgres, "io_manager": manager},
        )
    sys.exit(0 if result.success else 1)


if __name__ == "__main__":
    main(sys.argv[1])
