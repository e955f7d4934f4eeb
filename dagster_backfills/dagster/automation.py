"""Sensors that keep dynamic partitions and their contents up to date."""

from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from itertools import takewhile
from typing import TYPE_CHECKING, Any

import dagster as dg
import psycopg

from dagster_backfills.engine.back_off import back_off, is_resting
from dagster_backfills.engine.selection import is_key

if TYPE_CHECKING:
    from dagster_backfills.dagster.private import UnresolvedAssetJobDefinition

UNFINISHED = [
    dg.DagsterRunStatus.QUEUED,
    dg.DagsterRunStatus.NOT_STARTED,
    dg.DagsterRunStatus.STARTING,
    dg.DagsterRunStatus.STARTED,
    dg.DagsterRunStatus.CANCELING,
]


def partition_sync_sensor(
    name: str,
    partitions_def: dg.DynamicPartitionsDefinition,
    statement: str,
    *,
    on_new: Callable[[psycopg.Connection[Any], Sequence[str]], None] | None = None,
    resource: str = "postgres",
    assets: Sequence[str] | None = None,
) -> dg.SensorDefinition:
    """A sensor that syncs `partitions_def` with the keys that `statement` returns, one key per row, oldest first.

    on_new: called with new keys, in a transaction, before they become partitions. assets: the assets that Dagster
    shows the sensor with.
    """

    @dg.sensor(
        name=name,
        minimum_interval_seconds=30,
        default_status=dg.DefaultSensorStatus.RUNNING,
        description=f"Adds and removes {partitions_def.name!r} partitions so that they match their rows in Postgres.",
        required_resource_keys={resource},
        asset_selection=assets,
    )
    def sync(context: dg.SensorEvaluationContext) -> dg.SensorResult | dg.SkipReason:
        known = set(context.instance.get_dynamic_partitions(str(partitions_def.name)))
        with getattr(context.resources, resource).connect() as conn:
            source = [str(row[0]) for row in conn.execute(statement, {}) if is_key(row[0])]
            missing, gone = [key for key in source if key not in known], sorted(known.difference(source))
            if missing and on_new is not None:
                on_new(conn, missing)
                conn.commit()
        requests: list[dg.AddDynamicPartitionsRequest | dg.DeleteDynamicPartitionsRequest] = []
        if missing:
            requests.append(partitions_def.build_add_request(missing))
        if gone:
            requests.append(partitions_def.build_delete_request(gone))
        if not requests:
            return dg.SkipReason(f"All {len(source):,} partitions match their rows.")
        return dg.SensorResult(dynamic_partitions_requests=requests)

    return sync


def failed_in_a_row(records: Sequence[dg.RunRecord]) -> list[dg.RunRecord]:
    """The newest consecutive failed runs. `records` must be sorted newest first."""
    return list(takewhile(lambda record: record.dagster_run.status == dg.DagsterRunStatus.FAILURE, records))


def refresh_sensor(
    name: str,
    job: dg.JobDefinition,
    due: Callable[[psycopg.Connection[Any]], int],
    *,
    what: str,
    resource: str = "postgres",
    asset_job: "UnresolvedAssetJobDefinition | None" = None,
) -> dg.SensorDefinition:
    """A sensor that runs `job` while `due` returns more than zero: one run at a time, backing off after failures.

    The run selects its own partitions when it starts, so ticks need no coordination. asset_job: a job that selects the
    assets which `job`, an op job, writes. It is never launched here. Dagster shows the sensor as the assets' automation
    because of its selection.
    """

    @dg.sensor(
        name=name,
        jobs=[job, *([asset_job] if asset_job else [])],
        minimum_interval_seconds=30,
        default_status=dg.DefaultSensorStatus.RUNNING,
        description=f"Runs {job.name} while there are {what}.",
        required_resource_keys={resource},
    )
    def refresh(context: dg.SensorEvaluationContext) -> dg.RunRequest | dg.SkipReason:
        with getattr(context.resources, resource).connect() as conn:
            count = due(conn)
        if not count:
            return dg.SkipReason(f"There are no {what}.")
        instance = context.instance
        active = instance.get_run_records(dg.RunsFilter(job_name=job.name, statuses=UNFINISHED), limit=1)
        if active:
            return dg.SkipReason(
                f"{count:,} {what}; run {active[0].dagster_run.run_id} of {job.name} is working on them."
            )
        failed = failed_in_a_row(instance.get_run_records(dg.RunsFilter(job_name=job.name), limit=12))
        if failed and is_resting(len(failed), failed[0].create_timestamp, datetime.now(UTC)):
            return dg.SkipReason(
                f"{count:,} {what}, but the last {len(failed)} runs of {job.name} failed. The next run starts "
                f"{back_off(len(failed))} after the last one."
            )
        return dg.RunRequest(job_name=job.name, tags={"backfills/reason": f"{count} {what}"})

    return refresh
