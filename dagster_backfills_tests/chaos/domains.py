"""Invariants of each domain after a storm, and the operator's commands that repair a domain.

Not here: the traffic during a storm, and the faults.
"""

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import date, timedelta
from typing import Any

import psycopg

from dagster_backfills.domains.scoring.chain import ACTIONS_STEP
from dagster_backfills_tests.chaos.stack import Stack, run_pids
from dagster_backfills_tests.domains.progress import reference


@dataclass
class Expected:
    """What the storm's traffic wrote and Postgres acknowledged, and the result on an undisturbed stack."""

    days: list[date]
    scores: dict[str, list[tuple[Any, ...]]]
    completed: list[tuple[Any, ...]] = field(default_factory=list)
    files: dict[str, set[str]] = field(default_factory=dict)
    rejected: dict[str, int] = field(default_factory=dict)
    jobs: set[str] = field(default_factory=set)


Check = Callable[[psycopg.Connection, Stack, Expected], list[str]]
SCORES = {
    "commitment_scores": "select day, member_id, score, attendance_decay, missed_sessions, time_gaps,"
    " decline_velocity, time_decay, velocity_per_week, band from scoring.commitment_scores"
    " where day = any(%s) order by 1, 2",
    "churn_risk_scores": "select day, member_id, level, score from scoring.churn_risk_scores"
    " where day = any(%s) order by 1, 2",
    "coach_actions": "select day, member_id, coach_id, type, priority, description from scoring.coach_actions"
    " where day = any(%s) order by 1, 2, 3",
}


def _count(conn: psycopg.Connection, what: str, statement: str, binds: Any = None) -> list[str]:
    """Returns a problem if the statement counts more than zero."""
    row = conn.execute(statement, binds).fetchone()
    return [f"{row[0]} {what}"] if row and row[0] else []


def _engine(conn: psycopg.Connection, schema: str) -> list[str]:
    return [
        *_count(
            conn,
            "stale marks",
            "select count(*) from backfill.stale_marks where asset like %s",
            [f"{schema}/%"],
        ),
        *_count(
            conn,
            "open failures",
            "select count(*) from backfill.failures where resolved_at is null and asset like %s",
            [f"{schema}/%"],
        ),
    ]


_TRAINING = {
    "records missing": """
        select count(*) from training.members m cross join training.training_videos v
        where not m.deactivated and not exists (
            select from training.employee_training_video_completions c where c.member_id = m.id and c.video_id = v.id
        )""",
    "records twice": """
        select count(*) - count(distinct (member_id, video_id)) from training.employee_training_video_completions""",
    "records backfilled for deactivated members": """
        select count(*) from training.employee_training_video_completions c
        join training.members m on m.id = c.member_id where m.deactivated and c.backfill_id is not null""",
    "organizations counted wrongly": """
        select count(*) from training.organizations o
        left join training.organization_training_progress p on p.organization_id = o.id
        left join lateral (
            select count(distinct m.id) as members, count(c.id) as records, count(c.completed_at) as completed
            from training.members m left join training.employee_training_video_completions c on c.member_id = m.id
            where m.organization_id = o.id and not m.deactivated
        ) as e on true
        where (p.members, p.records, p.completed) is distinct from (e.members, e.records, e.completed)""",
}
_LOST = """
    select count(*) from unnest(%s::text[], %s::text[], %s::timestamptz[]) as e (m, v, at)
    where not exists (
        select from training.employee_training_video_completions c
        where c.member_id = m and c.video_id = v and c.completed_at = at
    )"""


def training(conn: psycopg.Connection, stack: Stack, expected: Expected) -> list[str]:
    columns = [[row[n] for row in expected.completed] for n in range(3)]
    return [
        *(complaint for what, statement in _TRAINING.items() for complaint in _count(conn, what, statement)),
        *_count(conn, "completed records changed or lost", _LOST, columns),
        *_engine(conn, "training"),
    ]


def progress(conn: psycopg.Connection, stack: Stack, expected: Expected) -> list[str]:
    with conn.transaction():
        conn.execute("set transaction isolation level repeatable read")
        sources = reference.read_sources(conn)
        users, cohorts = reference.stored_user_stats(conn), reference.stored_cohort_stats(conn)
    found = []
    for what, is_, should in (
        ("students", users, reference.user_stats(sources)),
        ("cohorts", cohorts, reference.cohort_stats(sources)),
    ):
        wrong = [key for key in is_.keys() | should.keys() if is_.get(key) != should.get(key)]  # type: ignore[attr-defined]
        found += [f"{len(wrong)} {what} wrong"] if wrong else []
    return found + _engine(conn, "progress")


def kintell(conn: psycopg.Connection, stack: Stack, expected: Expected) -> list[str]:
    jobs = conn.execute(
        "select regexp_replace(file_url, '.*/', ''), status, failed_rows from kintell.backfill_jobs"
    ).fetchall()
    by_file = Counter(name for name, status, _ in jobs if status == "completed")
    found = [f"file {name} imported {by_file[name]} times" for name in expected.files if by_file[name] != 1]
    found += [f"import of {name} is {status}" for name, status, _ in jobs if status != "completed"]
    rejected = {name: failed for name, _, failed in jobs}
    found += [
        f"{rejected.get(name)} rows of {name} rejected, not {count}"
        for name, count in expected.rejected.items()
        if rejected.get(name) != count
    ]
    sessions = Counter(
        row[0] for row in conn.execute("select external_session_id from kintell.kintell_sessions")
    )
    wanted = Counter(session for ids in expected.files.values() for session in ids)
    if sessions != wanted:
        found.append(
            f"{(wanted - sessions).total()} sessions missing, {(sessions - wanted).total()} too many"
        )
    found += _count(
        conn,
        "accounts wrong",
        "select count(*) from kintell.backfill_jobs j where (j.processed_rows, j.inserted_rows, j.failed_rows)"
        " is distinct from (j.inserted_rows + j.updated_rows + j.skipped_rows + j.failed_rows,"
        " (select count(*) from kintell.kintell_sessions s where s.backfill_job_id = j.id),"
        " (select count(*) from kintell.backfill_row_errors e where e.job_id = j.id and e.resolved_at is null))",
    )
    found += _count(
        conn,
        "sessions without their one event",
        "select count(*) from kintell.kintell_sessions s where (select count(*) from kintell.event_outbox o"
        " where o.session_id = s.id) <> 1",
    )
    found += _count(
        conn,
        "days summarized wrongly",
        "select count(*) from (select (scheduled_at at time zone 'UTC')::date as day, count(*) as sessions,"
        " sum(duration_minutes) as minutes from kintell.kintell_sessions group by 1) as e"
        " full join kintell.daily_session_summary s using (day)"
        " where (e.sessions, e.minutes) is distinct from (s.sessions, s.total_minutes)",
    )
    found += _engine(conn, "kintell")
    if stack.nats:
        found += _count(
            conn, "events waiting", "select count(*) from kintell.event_outbox where published_at is null"
        )
        if not found and wanted:
            sent = Counter(message_id for _, message_id, _ in stack.nats.stored())
            ids = Counter(str(row[0]) for row in conn.execute("select id from kintell.event_outbox"))
            if sent != ids:
                found.append(
                    f"{(ids - sent).total()} events lost, {(sent - ids).total()} sent twice or unknown"
                )
    return found


def jobs(conn: psycopg.Connection, stack: Stack, expected: Expected) -> list[str]:
    there = Counter(row[0] for row in conn.execute("select unique_key from jobs.background_jobs"))
    found = [f"{len(expected.jobs - there.keys())} jobs lost"] if expected.jobs - there.keys() else []
    found += [f"{n} jobs twice" for n in [sum(count > 1 for count in there.values())] if n]
    for status, count in conn.execute(
        "select status, count(*) from jobs.background_jobs where status <> 'completed' group by 1 order by 1"
    ):
        found.append(f"{count} jobs {status}")
    found += _count(
        conn,
        "jobs that did not end exactly once",
        "select count(*) from (select id from jobs.background_jobs b left join chaos.job_ends e on e.job_id = b.id"
        " and e.status = 'completed' where b.status = 'completed' group by id having count(e.job_id) <> 1) as t",
    )
    found += _count(
        conn,
        "completed jobs without output",
        "select count(*) from jobs.background_jobs where status = 'completed' and output_data is null",
    )
    return found + _count(conn, "entries in the queue", "select count(*) from jobs.job_queue")


def scoring(conn: psycopg.Connection, stack: Stack, expected: Expected) -> list[str]:
    found = []
    for day in expected.days:
        rows = conn.execute(
            "select count(*) from scoring.chain_days where day = %s and outcome = 'complete'", [day]
        )
        complete = rows.fetchone()
        if complete != (3,):
            found.append(f"{day}: {complete and complete[0]} of 3 links complete")
    for table, statement in SCORES.items():
        # A storm may run past the hour at which the next day is scored.
        now = conn.execute(statement, [expected.days]).fetchall()
        rows_now, rows_then = Counter(now), Counter(expected.scores[table])
        if rows_now != rows_then:
            missing, more = (rows_then - rows_now).total(), (rows_now - rows_then).total()
            found.append(f"{table}: {missing} rows missing, {more} that an undisturbed chain has not")
    return found


def instance(conn: psycopg.Connection, stack: Stack, expected: Expected) -> list[str]:
    """Checks that no run is left over: Dagster has ended the killed runs, and no run stays queued."""
    started = run_pids(conn, "select run_id from dagster.runs where status = 'STARTED'")
    dead = sum(pid not in {process.pid for process in stack.runs()} for pid in started.values())
    rows = conn.execute(
        "select status, count(*) from dagster.runs where status in ('QUEUED', 'NOT_STARTED', 'STARTING', 'CANCELING')"
        " and create_timestamp < (clock_timestamp() at time zone 'UTC') - interval '2 minutes' group by 1 order by 1"
    )
    found = [f"{count} runs {status} for long" for status, count in rows]
    return found + ([f"{dead} runs STARTED whose process is gone"] if dead else [])


CHECKS: dict[str, Check] = {
    "training": training,
    "progress": progress,
    "kintell": kintell,
    "jobs": jobs,
    "scoring": scoring,
    "runs": instance,
}


def broken(stack: Stack, expected: Expected) -> dict[str, list[str]]:
    """Problems by domain; empty if there are none."""
    with stack.connect() as conn:
        stale = "select count(*) from backfill.stale_marks where asset like 'progress/%'"
        if _count(conn, "stale marks", stale):  # the most expensive check is last
            known = {"progress": _engine(conn, "progress")}
            rest = {name: check for name, check in CHECKS.items() if name != "progress"}
        else:
            known, rest = {}, CHECKS
        return known | {
            name: found for name, check in rest.items() if (found := check(conn, stack, expected))
        }


def mend(stack: Stack, expected: Expected, domain: str) -> list[str]:
    """Runs the operator's commands for a domain that does not recover by itself, and returns them."""
    commands: list[list[str]] = []
    with stack.connect() as conn:
        if domain == "training":
            commands = [["run", "training_completions", "--yes"]]
        elif domain == "progress":
            commands = [["run", "progress_stats", "--yes"]]
        elif domain == "kintell":
            unfinished = "select id::text from kintell.backfill_jobs where status <> 'completed'"
            commands = [["kintell", "resume", job] for (job,) in conn.execute(unfinished)]
            for path in sorted((stack.home / "inbox").glob("*.csv")):
                known = "select from kintell.backfill_jobs where file_url like %s"
                if conn.execute(known, [f"%/{path.name}"]).fetchone() is None:
                    commands.append(["kintell", "start", str(path)])
        elif domain == "jobs":
            commands = [["queue", "retry", "--type", "sop_generation", "--yes"]]
        elif domain == "scoring":
            days = conn.execute(
                "select d from unnest(%s::date[]) as d"
                " where (select count(*) from scoring.chain_days c where c.day = d and outcome = 'complete') < 3"
                " order by 1",
                [expected.days],
            )
            commands = [["run", "scoring", "-p", day.isoformat(), "--yes"] for (day,) in days]
    for command in commands:
        stack.backfills(*command)
    return [" ".join(command) for command in commands]


def newest_days(conn: psycopg.Connection) -> list[date]:
    """The days that the chain must score in a storm: the two newest ones whose last step may run by now."""
    opens = "select (now() at time zone 'UTC' - %s::interval)::date - 1"
    row = conn.execute(opens, [f"{ACTIONS_STEP.opens:%H:%M}"]).fetchone()
    assert row is not None
    return [row[0] - timedelta(days=back) for back in (1, 0)]
