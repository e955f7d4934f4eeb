"""The sessions, which imports write, and their summary by day, which follows."""

import dagster as dg

from dagster_backfills.defs.kintell.reporting import SESSIONS
from dagster_backfills.domains.kintell.statements import statements
from dagster_backfills.engine.model import Query, Target, Write, WriteSet

FIRST_DAY = "2000-01-01"
DAILY_SUMMARY = Target("kintell/daily_session_summary", partition_by="day")

days = dg.DailyPartitionsDefinition(start_date=FIRST_DAY, end_offset=1)

kintell_sessions = dg.AssetSpec(
    SESSIONS,
    group_name="kintell",
    kinds={"postgres"},
    description="Sessions, one row each. Written by applications and by imports; each import reports its outcome here.",
)


def daily_summary_write() -> Write:
    """What a day's summary is computed from."""
    sql = statements().daily_session_summary.sql.rstrip().removesuffix(";")
    return Write(DAILY_SUMMARY, Query(sql))


@dg.asset(
    key=DAILY_SUMMARY.asset.split("/"),
    group_name="kintell",
    kinds={"postgres"},
    partitions_def=days,
    backfill_policy=dg.BackfillPolicy.single_run(),
    deps=[SESSIONS],
    metadata=DAILY_SUMMARY.metadata(),
    description=(
        "One row a day (UTC) that has sessions: how many, of which type, by how many people, how long, how rated. "
        "Days that an import or anyone else touched are computed again by refresh_daily_session_summary."
    ),
)
def daily_session_summary() -> WriteSet:
    return WriteSet([daily_summary_write()])
