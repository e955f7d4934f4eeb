"""Failure notification sensors: one per channel. The cursor advances only after a message has been delivered."""

import os
from collections.abc import Mapping, Sequence

import dagster as dg

from dagster_backfills.dagster.resource import PostgresResource
from dagster_backfills.defs.operations.channels import NotificationSettings, enabled_channels
from dagster_backfills.defs.operations.notifications import failed_run, message_of
from dagster_backfills.domains.operations.statements import STATEMENTS

_MOST_AT_ONCE = 200
_FAILED, _DONE = dg.DagsterEventType.RUN_FAILURE, dg.DagsterEventType.RUN_SUCCESS


@dg.definitions
def notification_sensors() -> dg.Definitions:
    return dg.Definitions(
        sensors=failure_sensors(os.environ),
        resources={"notifications": NotificationSettings.from_variables(os.environ)},
    )


def failure_sensors(environment: Mapping[str, str]) -> list[dg.SensorDefinition]:
    """A sensor for each channel that the environment enables. Invalid settings fail its ticks."""
    ui = environment.get("DAGSTER_WEBSERVER_URL", "").strip()  # for links in messages
    return [_failure_sensor(name, ui) for name in enabled_channels(environment)]


def _failure_sensor(name: str, ui: str) -> dg.SensorDefinition:
    @dg.sensor(
        name=f"failure_{name}",
        minimum_interval_seconds=30,
        default_status=dg.DefaultSensorStatus.RUNNING,
        description=(
            f"Sends failed runs of all jobs, and failed units of successful runs, to {name} with links. A message "
            "that could not be delivered is sent again at the next tick."
        ),
    )
    def notify(
        context: dg.SensorEvaluationContext, postgres: PostgresResource, notifications: NotificationSettings
    ) -> dg.SkipReason:
        instance = context.instance
        notifications.check(name)
        if context.cursor is None:
            # Runs that ended before notifications were enabled are not reported.
            context.update_cursor(f"{_newest(instance, _FAILED)} {_newest(instance, _DONE)}")
            return dg.SkipReason("From now on, failed runs and units are reported.")
        failed_upto, done_upto = map(int, context.cursor.split())
        failed = _changes(instance, _FAILED, failed_upto)
        done = _changes(instance, _DONE, done_upto)
        reported = []
        with postgres.connect() as conn:
            binds = {"run_ids": [record.run_id for record in done]}
            with_failed_units = {row[0] for row in conn.execute(STATEMENTS["runs_with_new_failures"], binds)}
            for record in [*failed, *(record for record in done if record.run_id in with_failed_units)]:
                run = instance.get_run_by_id(record.run_id)
                if run is None or run.tags.get("dagster/will_retry") == "true":
                    continue
                event = record.event_log_entry.get_dagster_event()
                reported.append(failed_run(conn, instance, run, event, ui))
        if reported:
            notifications.send(name, message_of(reported))
        failed_upto = failed[-1].storage_id if failed else failed_upto
        done_upto = done[-1].storage_id if done else done_upto
        context.update_cursor(f"{failed_upto} {done_upto}")
        if not failed and not reported:
            return dg.SkipReason("No run has failed, and no unit has failed.")
        retried = len(failed) + len(with_failed_units) - len(reported)
        return dg.SkipReason(f"Runs reported: {len(reported):,}; being retried: {retried:,}.")

    return notify


def _newest(instance: dg.DagsterInstance, kind: dg.DagsterEventType) -> int:
    newest = instance.fetch_run_status_changes(kind, limit=1).records
    return newest[0].storage_id if newest else 0


def _changes(
    instance: dg.DagsterInstance, kind: dg.DagsterEventType, after: int
) -> Sequence[dg.EventLogRecord]:
    """The next runs that ended with this status, oldest first."""
    return instance.fetch_run_status_changes(
        dg.RunStatusChangeRecordsFilter(kind, after_storage_id=after),  # type: ignore[arg-type]
        limit=_MOST_AT_ONCE,
        ascending=True,
    ).records
