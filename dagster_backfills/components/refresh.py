"""What keeps a declared backfill up to date: the job that finds scattered work, the sensors and the schedule for it."""

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

import dagster as dg
import psycopg

from dagster_backfills.components.assets import observed, output_names
from dagster_backfills.components.declaration import Schedule
from dagster_backfills.components.inspection import refuse_mistakes
from dagster_backfills.dagster.automation import partition_sync_sensor, refresh_sensor
from dagster_backfills.dagster.jobs import Refresh, refresh_job
from dagster_backfills.engine.selection import Which
from dagster_backfills.errors import UserError

if TYPE_CHECKING:
    from dagster_backfills.components.building import Backfill
    from dagster_backfills.dagster.private import UnresolvedAssetJobDefinition


def build_job(backfill: "Backfill") -> dg.JobDefinition:
    """The job for work that lies scattered: repairs, what is stale, what is new. Its launchpad is flat."""
    ops = [_op(backfill, position) for position in range(len(backfill.declared.tables))]
    return refresh_job(backfill.name, backfill.group, ops, backfill.rules.after())


def build_asset_job(backfill: "Backfill") -> "UnresolvedAssetJobDefinition":
    """The job for partitions that somebody chooses. By it Dagster knows which assets the sensors keep up to date."""
    return dg.define_asset_job(
        f"materialize_{backfill.name}",
        selection=dg.AssetSelection.assets(*(table.key_path for table in backfill.declared.tables)),
        description=f"Write chosen partitions of {backfill.name}, with its checks.",
        tags={"backfills/domain": backfill.group},
    )


def _op(backfill: "Backfill", position: int) -> dg.OpDefinition:
    """The step for partitions of which the tables from this one on need work: those before it are as they are."""
    tables = backfill.declared.tables[position:]

    @dg.op(
        name=f"write_{output_names(backfill.declared.tables)[position]}",
        description="Find the partitions and write them, reporting each by itself.",
        out=dg.Out(io_manager_key=backfill.io_manager),
        required_resource_keys={backfill.database},
    )
    def write(context: dg.OpExecutionContext, config: Refresh) -> Iterator[Any]:
        keys = _keys(backfill, context, config, position)
        yield dg.Output(backfill.write_set(tables, context.run, keys))
        if position == 0:
            yield from observed(backfill, context)

    return write


def _keys(backfill: "Backfill", context: dg.OpExecutionContext, config: Refresh, position: int) -> list[str]:
    if position and config.which not in (Which.due, Which.needed, Which.stale):
        return []  # all that is asked for is written from its first table on
    try:
        with backfill.connect(context) as conn:
            refuse_mistakes(backfill, conn)
            backfill.look(conn)
            chosen = backfill.selection(context.instance).choose(
                conn, config.which, config.partitions, automatic=_is_automatic(context.run.tags)
            )
            conn.commit()
    except UserError as error:
        raise dg.Failure(str(error), allow_retries=False) from error
    keys = [key for key, first in chosen.items() if first == position]
    backfill.add_partitions(context.instance, keys)
    context.log.info(f"{len(keys):,} partitions to write ({config.which.value}).")
    return keys


def _is_automatic(tags: Mapping[str, str]) -> bool:
    return any(tag in tags for tag in ("dagster/schedule_name", "dagster/sensor_name"))


def build_sensors(backfill: "Backfill") -> list[dg.SensorDefinition]:
    """One that syncs partitions which are rows, and one that runs the job while something is due."""
    partitions, declared = backfill.partitions_def, backfill.declared
    sensors = []
    if isinstance(partitions, dg.DynamicPartitionsDefinition):
        assert declared.partitions is not None and declared.partitions.keys is not None
        keys = backfill.statements[declared.partitions.keys].sql
        sensors.append(
            partition_sync_sensor(
                f"{partitions.name}_sync",
                partitions,
                lambda: keys,
                # Keys that are seen for the first time are due, where no statement says which are.
                on_new=None if declared.due else lambda conn, new: backfill.mark(conn, backfill.assets, new),
                resource=backfill.database,
                assets=backfill.assets,
            )
        )
    if sensors or declared.stale_when or declared.due:
        sensors.append(
            refresh_sensor(
                f"{backfill.name}_refresh",
                backfill.job,
                lambda conn: _count_due(backfill, conn),
                what="partitions due",
                resource=backfill.database,
                asset_job=backfill.asset_job,
            )
        )
    return sensors


def _count_due(backfill: "Backfill", conn: psycopg.Connection[Any]) -> int:
    backfill.look(conn)
    return len(backfill.selection().choose(conn, Which.due))


def build_schedules(backfill: "Backfill") -> list[dg.ScheduleDefinition]:
    """The declared schedule, if there is one."""
    given = backfill.declared.schedule
    if given is None:
        return []
    schedule = Schedule(cron=given) if isinstance(given, str) else given
    calendar = isinstance(backfill.partitions_def, dg.TimeWindowPartitionsDefinition)
    return [
        dg.ScheduleDefinition(
            name=schedule.name or f"{backfill.name}_schedule",
            job=backfill.job,
            cron_schedule=schedule.cron,
            execution_timezone=schedule.timezone,
            run_config={"which": "needed" if calendar else "all"},
            default_status=dg.DefaultScheduleStatus.RUNNING,
            description=f"Writes {'what needs it' if calendar else 'everything'}; what is right is not rewritten.",
        )
    ]
