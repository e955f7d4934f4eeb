"""Where the records lie and what creates them: shared by the assets and the jobs."""

from pathlib import Path

import dagster as dg

from dagster_backfills.lib.engine.model import Query, Target, Write
from dagster_backfills.lib.postgres.queries import load_queries

COMPLETIONS = Target(
    "training/employee_training_video_completions",
    partition_by="organization_id",
    unit="member_id",
    mode="insert_missing",
    key=("member_id", "video_id"),
)
PROGRESS = Target("training/organization_training_progress", partition_by="organization_id")
ASSETS = [COMPLETIONS.asset, PROGRESS.asset]


def statement(name: str) -> str:
    """One of the domain's named statements."""
    return load_queries(Path(__file__).with_name("queries.sql"))[name]


def backfill_id_of(run: dg.DagsterRun) -> str:
    """What the records that `run` creates are known by: Dagster's backfill, else the run that it goes on from."""
    return run.tags.get("dagster/backfill") or run.root_run_id or run.run_id


# Nobody waits for records that are not there yet. Organizations' members lie all over the index of members and videos:
# the more of them a batch has, the more rows share a page of it.
BATCH_SECONDS = 5.0


def completions(backfill_id: str) -> Write:
    """The records that members lack, created in the name of `backfill_id`."""
    return Write(
        COMPLETIONS,
        Query(statement("missing_completions"), {"backfill_id": backfill_id}, only_missing=True),
        units=Query(statement("members_due_records")),
    )


def progress() -> Write:
    """Every organization's row, from the records of the same transaction."""
    return Write(PROGRESS, Query(statement("organization_progress")))
