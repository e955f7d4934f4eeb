"""From files to events: the inbox, the sessions that imports write, what follows from them, and who reads it."""

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
from dagster_backfills.domains.kintell.file.inbox import list_inbox
from dagster_backfills.domains.kintell.statements import STATEMENTS
from dagster_backfills.engine.model import Query, Target, Write, WriteSet
from dagster_backfills.environment import from_environment, usable_from_environment
from dagster_backfills.redact import redact

CATALOG = catalog_of(Path(__file__).parent)
DAILY_SUMMARY = Target("kintell/daily_session_summary", partition_by="day")
INBOX, STREAM = dg.AssetKey(["kintell", "inbox"]), dg.AssetKey(["kintell", "event_stream"])
_TABLE = "kintell.kintell_sessions"
# By column of the sessions, the columns of the file that it is made of.
_OF_FILE = {
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
_FILE_COLUMNS = dict.fromkeys(source for sources in _OF_FILE.values() for source in sources)
_OF_SESSIONS = {
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
    said = usable_from_environment(KintellSettings, VARIABLES).get(field, "")
    return {"dagster/uri": said.rpartition("@")[2]} if said else {}


@dg.multi_observable_source_asset(
    name="inbox",
    specs=[
        dg.AssetSpec(
            INBOX,
            automation_condition=periodically("7 * * * *"),
            group_name="kintell",
            kinds={"csv", "file"},
            description="Files of sessions, from the inbox (KINTELL_INBOX) or named by whoever starts an import.",
            metadata={
                **_uri("inbox"),
                "dagster/column_schema": dg.TableSchema(
                    [dg.TableColumn(name, "string") for name in _FILE_COLUMNS]
                ),
            },
        )
    ],
)
def inbox(kintell: KintellSettings) -> Iterator[dg.ObserveResult]:
    """How many files lie in the inbox, and what is wrong with those that can't be imported."""
    listing = list_inbox(kintell.inbox_url) if kintell.inbox_url else None
    if listing is not None:
        metadata = {"files": len(listing.arrivals), "not_importable": len(listing.problems)}
        yield dg.ObserveResult(INBOX, metadata=metadata)
    else:
        yield dg.ObserveResult(INBOX, metadata={"inbox": "KINTELL_INBOX is not set: files are named."})


kintell_tables = observed_tables(
    "kintell_tables",
    [
        CATALOG.spec(
            _TABLE,
            deps=[INBOX, ["kintell", "users"]],
            lineage={
                column: [f"kintell/inbox.{source}" for source in sources]
                for column, sources in _OF_FILE.items()
            },
            description="Sessions, one row each. Written by applications and by imports; each import reports its "
            "outcome here.",
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
            "sensor kintell_events has them sent as they come.",
            metadata=_uri("nats_url"),
        )
    ],
)
def event_stream(postgres: PostgresResource) -> Iterator[dg.ObserveResult]:
    """When an event was stored last, how many wait for it, and what was in the way."""
    with postgres.connect() as conn:
        last, waiting, error = STATEMENTS.publishing(conn)
        conn.commit()
    seen: dict[str, Any] = {"events_waiting": waiting}
    if last:
        seen["dagster/last_updated_timestamp"] = dg.MetadataValue.timestamp(last)
    if error:
        seen["last_error"] = redact(error)
    yield dg.ObserveResult(STREAM, metadata=seen)


views = [
    CATALOG.spec(f"kintell.{view}")
    for view in ("sessions_per_date", "backfill_job_history", "backfill_daily_summary")
]


def daily_summary_write() -> Write:
    """What a day's summary is computed from. Raises UserError for a `KINTELL_FIRST_DAY` that is no day."""
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
                for column, sources in _OF_SESSIONS.items()
            },
        ),
        **code_here("daily_session_summary"),
    },
    description=(
        "One row a day (UTC) that has sessions: how many, of which type, by how many people, how long, how rated. "
        "Days that an import or anyone else touched are computed again by refresh_daily_session_summary."
    ),
)
def daily_session_summary() -> WriteSet:
    return WriteSet([daily_summary_write()])
