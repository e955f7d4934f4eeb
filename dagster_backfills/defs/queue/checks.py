"""What must hold for the queue."""

from typing import Any

import dagster as dg

from dagster_backfills.dagster.checks import periodically
from dagster_backfills.dagster.resource import PostgresResource
from dagster_backfills.defs.queue.assets import KEY
from dagster_backfills.domains.queue import queue

_EVERY_FIVE_MINUTES = periodically(5)
_WINDOW_SECONDS = 24 * 3600
_MANY = 3


@dg.asset_check(asset=KEY, automation_condition=_EVERY_FIVE_MINUTES)
def no_stuck_jobs(postgres: PostgresResource) -> dg.AssetCheckResult:
    """No job waits for more than ten minutes though it is due, and none is at work past its lease."""
    with postgres.connect() as conn:
        stuck = queue.rows(conn, "stuck_jobs")
    return dg.AssetCheckResult(
        passed=not stuck,
        severity=dg.AssetCheckSeverity.ERROR,
        description=f"{len(stuck)} jobs are stuck." if stuck else "No job is stuck.",
        metadata={"stuck": len(stuck), "jobs": _table(stuck)} if stuck else {"stuck": 0},
    )


@dg.asset_check(asset=KEY, automation_condition=_EVERY_FIVE_MINUTES)
def no_type_fails_repeatedly(postgres: PostgresResource) -> dg.AssetCheckResult:
    """No type has three or more jobs that failed for good within a day and were not retried since."""
    with postgres.connect() as conn:
        failed = queue.rows(conn, "failed_by_type", window_seconds=_WINDOW_SECONDS)
    many = [row for row in failed if row["failed"] >= _MANY]
    said = ", ".join(f"{row['job_type']} ({row['failed']})" for row in many)
    return dg.AssetCheckResult(
        passed=not many,
        severity=dg.AssetCheckSeverity.WARN,
        description=f"Failed repeatedly within a day: {said}." if many else "No type fails repeatedly.",
        metadata={
            "failed": sum(r["failed"] for r in failed),
            **({"types": _table(failed)} if failed else {}),
        },
    )


def _table(rows: list[dict[str, Any]]) -> dg.TableMetadataValue:
    records = [dg.TableRecord({name: str(value)[:300] for name, value in row.items()}) for row in rows]
    columns = [dg.TableColumn(name) for name in rows[0]]
    return dg.MetadataValue.table(records, dg.TableSchema(columns=columns))
