"""The sensors: import new files, publish waiting events, summarize days whose sessions changed."""

import json

import dagster as dg
import psycopg

from dagster_backfills.dagster.automation import refresh_sensor
from dagster_backfills.defs.kintell.jobs import (
    import_kintell_sessions,
    materialize_daily_session_summary,
    publish_kintell_events,
    refresh_daily_session_summary,
)
from dagster_backfills.defs.kintell.resources import KintellSettings
from dagster_backfills.domains.kintell.file.inbox import complete_files, list_inbox
from dagster_backfills.domains.kintell.statements import STATEMENTS


@dg.sensor(
    job=import_kintell_sessions,
    minimum_interval_seconds=15,
    default_status=dg.DefaultSensorStatus.RUNNING,
    description="Imports each new file in the inbox once it has stopped growing. The same content is imported once.",
)
def kintell_inbox(
    context: dg.SensorEvaluationContext, kintell: KintellSettings
) -> dg.SensorResult | dg.SkipReason:
    inbox = kintell.inbox_url
    if not inbox:
        return dg.SkipReason("KINTELL_INBOX is not set.")
    listing = list_inbox(inbox)
    for problem in listing.problems:
        context.log.warning(f"Not imported: {problem}")
    complete, next_cursor = complete_files(listing.files, json.loads(context.cursor or "{}"))
    cursor = json.dumps(next_cursor)
    if not complete:
        context.update_cursor(cursor)
        problems = " ".join(f"Not imported: {problem}" for problem in listing.problems[:3])
        reason = f"No new file among the {len(next_cursor)} in the inbox is complete. {problems}"
        return dg.SkipReason(reason.rstrip())
    requests = [
        dg.RunRequest(
            run_key=f"{url}|{listing.files[url]}",
            run_config={"file": url, "once": True},
            tags={"kintell/file": url.rpartition("/")[2][-200:]},
        )
        for url in complete
    ]
    return dg.SensorResult(run_requests=requests, cursor=cursor)


def _events_due(conn: psycopg.Connection) -> int:
    if not KintellSettings().nats:
        return 0
    return int(STATEMENTS.count_waiting(conn, most=10_000))


kintell_events = refresh_sensor("kintell_events", publish_kintell_events, _events_due, what="events waiting")
kintell_summary_refresh = refresh_sensor(
    "kintell_summary_refresh",
    refresh_daily_session_summary,
    lambda conn: len(STATEMENTS.stale_days(conn)),
    what="days with changed sessions",
    asset_job=materialize_daily_session_summary,
)
