"""When people are told: a sensor a channel, whose cursor moves on once a message has been delivered."""

import os
from collections.abc import Mapping

import dagster as dg

from dagster_backfills.defs.operations.channels import Channel, channels_from
from dagster_backfills.defs.operations.notifications import failed_run, message_of, ui_address
from dagster_backfills.lib.postgres.resource import PostgresResource

_MOST_AT_ONCE = 200


@dg.definitions
def notification_sensors() -> dg.Definitions:
    return dg.Definitions(sensors=failure_sensors(os.environ))


def failure_sensors(environment: Mapping[str, str]) -> list[dg.SensorDefinition]:
    """A sensor for each channel that the environment sets up; none without."""
    return [_failure_sensor(channel, ui_address(environment)) for channel in channels_from(environment)]


def _failure_sensor(channel: Channel, ui: str) -> dg.SensorDefinition:
    @dg.sensor(
        name=f"failure_{channel.name}",
        minimum_interval_seconds=30,
        default_status=dg.DefaultSensorStatus.RUNNING,
        description=(
            f"Tells of failed runs of every job by {channel.name}, with the failing units and a link. What could not "
            "be delivered is tried again with the next tick."
        ),
    )
    def tell(context: dg.SensorEvaluationContext, postgres: PostgresResource) -> dg.SkipReason:
        instance = context.instance
        if context.cursor is None:
            # What failed before anyone asked to be told is history.
            newest = instance.fetch_run_status_changes(dg.DagsterEventType.RUN_FAILURE, limit=1).records
            context.update_cursor(str(newest[0].storage_id if newest else 0))
            return dg.SkipReason("From now on, failed runs are told of.")
        found = instance.fetch_run_status_changes(
            dg.RunStatusChangeRecordsFilter(
                dg.DagsterEventType.RUN_FAILURE, after_storage_id=int(context.cursor)
            ),
            limit=_MOST_AT_ONCE,
            ascending=True,
        ).records
        if not found:
            return dg.SkipReason("No run has failed.")
        failures = []
        with postgres.connect() as conn:
            for record in found:
                run = instance.get_run_by_id(record.run_id)
                if run is None or run.tags.get("dagster/will_retry") == "true":
                    continue
                event = record.event_log_entry.get_dagster_event()
                failures.append(failed_run(conn, instance, run, event, ui))
        if failures:
            channel.send(message_of(failures))
        context.update_cursor(str(found[-1].storage_id))
        return dg.SkipReason(
            f"Told of {len(failures):,} failed runs; {len(found) - len(failures):,} are retried."
        )

    return tell
