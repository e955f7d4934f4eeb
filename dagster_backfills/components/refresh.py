"""Automation of a declared backfill: the job that writes the partitions that need it, its sensors and its schedule."""

from collections.abc import Iterator, Sequence
from typing import Any

import dagster as dg
import psycopg

from dagster_backfills.components.assets import observed, output_names
from dagster_backfills.components.backfill import Backfill
from dagster_backfills.components.inspection import inspect
from dagster_backfills.dagster.automation import partition_sync_sensor, refresh_sensor
from dagster_backfills.dagster.failures import without_retry
from dagster_backfills.dagster.jobs import Refresh, job_of_steps
from dagster_backfills.engine.declared.declaration import Schedule
from dagster_backfills.engine.selection import Which
from dagster_backfills.names import counted

_AUTOMATION_TAGS = {"dagster/schedule_name", "dagster/sensor_name"}


def build_job(backfill: Backfill) -> dg.JobDefinition:
    """The job that selects the partitions that need writing (failed, stale, missing) and writes them in one run."""
    ops = [_op(backfill, position, name) for position, name in enumerate(output_names(backfill))]
    description = f"Write the partitions of {backfill.name} that need it, wherever they are, in one run."
    return job_of_steps(backfill.job, backfill.group, description, ops, Refresh, backfill.rules.after())


def _op(backfill: Backfill, position: int, name: str) -> dg.OpDefinition:
    """The step for partitions that need this table and those after it written, but none before it."""

    @dg.op(
        name=f"write_{name}",
        description="Select the partitions and write them. Each is reported as soon as it is written.",
        out=dg.Out(io_manager_key=backfill.io_manager),
        required_resource_keys={backfill.database},
    )
    def write(context: dg.OpExecutionContext, config: Refresh) -> Iterator[Any]:
        keys = _keys(backfill, context, config, position)
        yield dg.Output(backfill.write_set(backfill.declared.tables[position:], context.run, keys))
        if position == 0:
            yield from observed(backfill, context)

    return write


def _keys(backfill: Backfill, context: dg.OpExecutionContext, config: Refresh, position: int) -> list[str]:
    if position and config.which not in (Which.due, Which.needed, Which.stale):
        return []  # other selections write each partition from the first table on
    automatic = not _AUTOMATION_TAGS.isdisjoint(context.run.tags)
    with without_retry(), backfill.connect(context) as conn:
        inspect(backfill, conn)
        backfill.mark_changes(conn)
        conn.commit()
        chosen = backfill.selection().choose(conn, config.which, config.partitions, automatic=automatic)
        conn.commit()
    keys = [key for key, first in chosen.items() if first == position]
    backfill.add_partitions(context.instance, keys)
    context.log.info(f"{counted(len(keys), 'partition')} to write ({config.which.value}).")
    return keys


def build_sensors(backfill: Backfill, job: dg.JobDefinition, asset_job: Any) -> list[dg.SensorDefinition]:
    """A sensor that syncs dynamic partitions, and one that runs the job while partitions are due."""
    partitions, declared = backfill.partitions_def, backfill.declared
    sensors = []
    if isinstance(partitions, dg.DynamicPartitionsDefinition):
        assert declared.partitions is not None and declared.partitions.keys is not None
        sensors.append(
            partition_sync_sensor(
                f"{partitions.name}_sync",
                partitions,
                backfill.statements[declared.partitions.keys].sql,
                # A new key is due. A key that returns has lost its marks while it was gone, so it is marked too.
                on_new=lambda conn, new: backfill.mark(conn, backfill.assets, new),
                resource=backfill.database,
                assets=backfill.assets,
            )
        )
    if sensors or declared.stale_when or declared.due:

        def count_due(conn: psycopg.Connection[Any]) -> int:
            backfill.forget_gone(conn)
            backfill.mark_changes(conn)
            conn.commit()
            return len(backfill.selection().choose(conn, Which.due))

        sensors.append(
            refresh_sensor(
                f"{backfill.name}_refresh",
                job,
                count_due,
                what="partitions due",
                resource=backfill.database,
                asset_job=asset_job,
            )
        )
    return sensors


def build_schedules(backfill: Backfill, job: dg.JobDefinition) -> Sequence[dg.ScheduleDefinition]:
    """The declared schedule, if there is one."""
    given = backfill.declared.schedule
    if given is None:
        return []
    schedule = Schedule(cron=given) if isinstance(given, str) else given
    calendar = isinstance(backfill.partitions_def, dg.TimeWindowPartitionsDefinition)
    return [
        dg.ScheduleDefinition(
            name=schedule.name or f"{backfill.name}_schedule",
            job=job,
            cron_schedule=schedule.cron,
            execution_timezone=schedule.timezone,
            run_config={"which": "needed" if calendar else "all"},
            default_status=dg.DefaultScheduleStatus.RUNNING,
            description=f"Writes {'the partitions that need it' if calendar else 'all partitions'}. "
            "Rows that are already correct are not rewritten.",
        )
    ]
