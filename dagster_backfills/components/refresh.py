"""What keeps a declared backfill up to date: the job that finds scattered work, the sensors and the schedule for it."""

from collections.abc import Iterator, Sequence
from typing import Any

import dagster as dg
import psycopg

from dagster_backfills.components.assets import observed, output_names
from dagster_backfills.components.backfill import Backfill
from dagster_backfills.components.inspection import inspect
from dagster_backfills.dagster.automation import partition_sync_sensor, refresh_sensor
from dagster_backfills.dagster.failures import without_retry
from dagster_backfills.dagster.jobs import Refresh, refresh_job
from dagster_backfills.engine.declared.declaration import Schedule
from dagster_backfills.engine.selection import Which
from dagster_backfills.names import counted

_OF_AUTOMATION = {"dagster/schedule_name", "dagster/sensor_name"}


def build_job(backfill: Backfill) -> dg.JobDefinition:
    """The job for work that lies scattered: repairs, what is stale, what is new. Its launchpad is flat."""
    ops = [_op(backfill, position, name) for position, name in enumerate(output_names(backfill))]
    return refresh_job(backfill.job, backfill.name, backfill.group, ops, backfill.rules.after())


def _op(backfill: Backfill, position: int, name: str) -> dg.OpDefinition:
    """The step for partitions of which the tables from this one on need work: those before it are as they are."""

    @dg.op(
        name=f"write_{name}",
        description="Find the partitions and write them, reporting each by itself.",
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
        return []  # all that is asked for is written from its first table on
    automatic = not _OF_AUTOMATION.isdisjoint(context.run.tags)
    with without_retry(), backfill.connect(context) as conn:
        inspect(backfill, conn)
        backfill.look(conn)
        conn.commit()
        selection = backfill.selection(context.instance)
        chosen = selection.choose(conn, config.which, config.partitions, automatic=automatic)
        conn.commit()
    keys = [key for key, first in chosen.items() if first == position]
    backfill.add_partitions(context.instance, keys)
    context.log.info(f"{counted(len(keys), 'partition')} to write ({config.which.value}).")
    return keys


def build_sensors(backfill: Backfill, job: dg.JobDefinition, asset_job: Any) -> list[dg.SensorDefinition]:
    """One that syncs partitions which are rows, and one that runs the job while something is due."""
    partitions, declared = backfill.partitions_def, backfill.declared
    sensors = []
    if isinstance(partitions, dg.DynamicPartitionsDefinition):
        assert declared.partitions is not None and declared.partitions.keys is not None
        sensors.append(
            partition_sync_sensor(
                f"{partitions.name}_sync",
                partitions,
                backfill.statements[declared.partitions.keys].sql,
                # A key that is seen for the first time is due; what changed while one was gone is forgotten.
                on_new=lambda conn, new: backfill.mark(conn, backfill.assets, new),
                resource=backfill.database,
                assets=backfill.assets,
            )
        )
    if sensors or declared.stale_when or declared.due:

        def count_due(conn: psycopg.Connection[Any]) -> int:
            backfill.forget_gone(conn)
            backfill.look(conn)
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
            description=f"Writes {'what needs it' if calendar else 'everything'}; what is right is not rewritten.",
        )
    ]
