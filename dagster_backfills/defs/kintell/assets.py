"""The assets from files to events: the inbox, the tables that imports write, the daily summary, the event stream."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import dagster as dg

from dagster_backfills.dagster.catalog import catalog_of, code_here, code_version
from dagster_backfills.dagster.checks import periodically
from dagster_backfills.dagster.resource import PostgresResource
from dagster_backfills.dagster.sources import observed_tables
from dagster_backfills.defs.kintell.reporting import SESSIONS
from dagster_backfills.defs.kintell.resources import VARIABLES, KintellSettings, SummaryDays
from dagster_backfills.domains.kintell.file.columns import KNOWN
from dagster_backfills.domains.kintell.file.inbox import list_inbox
from dagster_backfills.domains.kintell.statements import STATEMENTS
from dagster_backfills.engine.model import Query, Target, Write, WriteSet
from dagster_backfills.environment import from_environment, usable_from_environment
from dagster_backfills.redact import redact

CATALOG = catalog_of(Path(__file__).parent)
DAILY_SUMMARY = Target("kintell/daily_session_summary", partition_by="day")
INBOX, STREAM = dg.AssetKey(["kintell", "inbox"]), dg.AssetKey(["kintell", "event_stream"])
_TABLE = "kintell.kintell_sessions"
# The file's columns that each column of the sessions is derived from.
_FROM_FILE = {
    "external_session_id": ["session_id"],
    "session_type": ["session_type"],
    "participant_id": ["participant_email"],
    "volunteer_id": ["volunteer_email"],
    "scheduled_at": ["date"],
    "completed_at": ["date", "duration_min"],
    "duration_minutes": ["duration_min"],
    "rating": ["rating"],
    "feedback_text": ["feedback_text"],
    "language_level": ["language_level"],
}
_FROM_SESSIONS = {
    "day": ["scheduled_at"],
    "sessions": ["id"],
    "language_sessions": ["session_type"],
    "mentorship_sessions": ["session_type"],
    "participants": ["participant_id"],
    "volunteers": ["volunteer_id"],
    "total_minutes": ["duration_minutes"],
    "average_duration_minutes": ["duration_minutes"],
    "rated_sessions": ["rating"],
    "average_rating": ["rating"],
}

days = dg.DailyPartitionsDefinition(
    start_date=SummaryDays(**usable_from_environment(SummaryDays, VARIABLES)).first_day.isoformat(),
    end_offset=1,
)


def _uri(field: str) -> dict[str, Any]:
    url = usable_from_environment(KintellSettings, VARIABLES).get(field, "")
    return {"dagster/uri": url.rpartition("@")[2]} if url else {}


@dg.multi_observable_source_asset(
    name="inbox",
    specs=[
        dg.AssetSpec(
            INBOX,
            automation_condition=periodically("7 * * * *"),
            group_name="kintell",
            kinds={"csv", "file"},
            description="Session files: new files in the inbox (KINTELL_INBOX), and files named when an import starts.",
            metadata={
                **_uri("inbox"),
                "dagster/column_schema": dg.TableSchema([dg.TableColumn(name, "string") for name in KNOWN]),
            },
        )
    ],
)
def inbox(kintell: KintellSettings) -> Iterator[dg.ObserveResult]:
    """Count the files in the inbox and those that can't be imported."""
    listing = list_inbox(kintell.inbox_url) if kintell.inbox_url else None
    metadata: dict[str, Any] = {"inbox": "KINTELL_INBOX is not set."}
    if listing is not None:
        metadata = {"files": len(listing.files), "not_importable": len(listing.problems)}
    yield dg.ObserveResult(INBOX, metadata=metadata)


kintell_tables = observed_tables(
    "kintell_tables",
    [
        CATALOG.spec(
            _TABLE,
            deps=[INBOX, ["kintell", "users"]],
            lineage={
                column: [f"kintell/inbox.{source}" for source in sources]
                for column, sources in _FROM_FILE.items()
            },
            description="One row per session, written by applications and by imports. Each import reports its result "
            "here.",
        ),
        CATALOG.spec("kintell.backfill_jobs", deps=[INBOX]),
        CATALOG.spec("kintell.backfill_row_errors", deps=[INBOX, ["kintell", "backfill_jobs"]]),
        CATALOG.spec("kintell.event_outbox", deps=[SESSIONS]),
    ],
)


@dg.multi_observable_source_asset(
    name="event_stream",
    specs=[
        dg.AssetSpec(
            STREAM,
            automation_condition=periodically("7 * * * *"),
            deps=[["kintell", "event_outbox"]],
            group_name="kintell",
            kinds={"nats", "stream"},
            description="Events of completed and rolled-back sessions in NATS JetStream, for other services. The "
            "sensor kintell_events publishes waiting events.",
            metadata=_uri("nats_url"),
        )
    ],
)
def event_stream(postgres: PostgresResource) -> Iterator[dg.ObserveResult]:
    """Report when events were last published, how many are waiting, and the last error."""
    with postgres.connect() as conn:
        last, waiting, error = STATEMENTS.publishing(conn)
        conn.commit()
    metadata: dict[str, Any] = {"events_waiting": waiting}
    if last:
        metadata["dagster/last_updated_timestamp"] = dg.MetadataValue.timestamp(last)
    if error:
        metadata["last_error"] = redact(error)
    yield dg.ObserveResult(STREAM, metadata=metadata)


views = [
    CATALOG.spec(f"kintell.{view}")
    for view in ("sessions_per_date", "backfill_job_history", "backfill_daily_summary")
]


def daily_summary_write() -> Write:
    """The write of the daily summary. Raises `UserError` if `KINTELL_FIRST_DAY` is not a date."""
    from_environment(SummaryDays, VARIABLES)
    return Write(DAILY_SUMMARY, Query(STATEMENTS["daily_session_summary"]))


@dg.asset(
    key=DAILY_SUMMARY.asset.split("/"),
    group_name="kintell",
    kinds={"postgres", "sql"},
    partitions_def=days,
    backfill_policy=dg.BackfillPolicy.single_run(),
    deps=[SESSIONS],
    code_version=code_version(STATEMENTS["daily_session_summary"]),
    metadata={
        **DAILY_SUMMARY.metadata(),
        **CATALOG.metadata(
            "kintell.daily_session_summary",
            {
                column: [f"{_TABLE}.{source}" for source in sources]
                for column, sources in _FROM_SESSIONS.items()
            },
        ),
        **code_here("daily_session_summary"),
    },
    description=(
        "One row per day (UTC) with sessions: their number by type, participants, volunteers, duration and rating. "
        "The job refresh_daily_session_summary recomputes days whose sessions changed."
    ),
)
def daily_session_summary() -> WriteSet:
    return WriteSet([daily_summary_write()])
