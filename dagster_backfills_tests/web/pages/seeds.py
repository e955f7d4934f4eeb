"""Data for the tests of the pages, inserted through the domains' own functions."""

from collections.abc import Iterable
from datetime import date
from pathlib import Path
from typing import Any
from uuid import UUID

import psycopg

from dagster_backfills.domains.kintell.file.register import register
from dagster_backfills.domains.kintell.importing.importer import run_import
from dagster_backfills.domains.kintell.importing.jobs import ImportJob, Options
from dagster_backfills.domains.queue import queue
from dagster_backfills.domains.scoring.action_rules import RULES, describe
from dagster_backfills_tests.domains.kintell.sample import write_csv

HOSTILE = "<script>alert('x')</script>"
DAY = date(2026, 3, 2)


def registered(conn: psycopg.Connection, path: Path, rows: Iterable[dict[str, str]]) -> UUID:
    """A pending import."""
    return register(conn, str(write_csv(path, rows)), [str(path.parent)]).job


def imported(
    conn: psycopg.Connection, url: str, path: Path, rows: Iterable[dict[str, str]], **options: Any
) -> ImportJob:
    """A finished import."""
    job = registered(conn, path, rows)
    return run_import(url, job, Options(**options), [str(path.parent)])


def enqueued(conn: psycopg.Connection, title: str = "Opening the shop", **more: Any) -> UUID:
    given = {"title": title, "transcript": "First, then next.", "duration": 60}
    return queue.enqueue(conn, "sop_generation", given, **more)


def claimed(conn: psycopg.Connection) -> queue.Job:
    """Claims the next job, which is then processing."""
    [job] = queue.claim(conn, "worker-1", 1)
    return job


def every_state(conn: psycopg.Connection) -> dict[str, UUID]:
    """A job in every state."""
    found: dict[str, UUID] = {}
    enqueued(conn)
    done = claimed(conn)
    queue.complete(conn, [(done, {"title": "Opening the shop", "sop_markdown": "# Opening"})])
    enqueued(conn)
    bad = claimed(conn)
    queue.fail(conn, bad, "MediaError", "https://example.org/a.mp4 is not there (404).", "Traceback …", False)
    found["cancelled"] = enqueued(conn)
    queue.cancel(conn, found["cancelled"])
    enqueued(conn)
    busy = claimed(conn)
    queue.report_progress(conn, busy, 40, "Chapter 2 of 5")
    found["pending"] = enqueued(conn)
    return found | {"completed": done.id, "failed": bad.id, "processing": busy.id}


def cohorts(conn: psycopg.Connection, names: Iterable[str], school: str = "North High") -> None:
    """Cohorts with statistics. Each one's name is also its ID."""
    conn.execute("insert into progress.schools values (%(s)s, %(s)s) on conflict do nothing", {"s": school})
    for at, name in enumerate(names):
        conn.execute(
            "insert into progress.cohorts (id, school_id, name) values (%s, %s, %s)", [name, school, name]
        )
        conn.execute("insert into progress.cohort_stats values (%s, 30, 200, 12, %s)", [name, at * 37 % 101])
    conn.execute("delete from backfill.stale_marks")


def students(conn: psycopg.Connection, cohort: str, names: Iterable[str]) -> None:
    """Students with 200 questions."""
    for at, name in enumerate(names):
        conn.execute(
            "insert into progress.users values (%s, %s, %s, 'a@example.org')",
            [f"{cohort}/{at}", cohort, name],
        )
        conn.execute(
            "insert into progress.user_progress_stats values (%s, %s, %s, %s, 200, '2026-02-27T10:00Z')"
            " on conflict (user_id) do update set questions_interacted = excluded.questions_interacted,"
            " questions_mastered = excluded.questions_mastered, total_questions = 200,"
            " last_activity_at = excluded.last_activity_at",
            [f"{cohort}/{at}", cohort, at * 17 % 201, at * 17 % 201 // 2],
        )  # fmt: skip


def actions(conn: psycopg.Connection, names: Iterable[str], coach: str = "coach-1", day: date = DAY) -> None:
    """A coach's actions of a day, one per member, cycling through the rules."""
    conn.execute("insert into scoring.gyms values ('g1', 'Riverside') on conflict do nothing")
    conn.execute("insert into scoring.coaches values (%s, 'g1') on conflict do nothing", [coach])
    for at, name in enumerate(names):
        rule, member = RULES[at % len(RULES)], f"{coach}-m{at:04d}"
        level, last = ("high", 21) if at % len(RULES) == 0 else ("medium", 9)
        description = describe(35, 70, level, last)
        conn.execute(
            "insert into scoring.members (id, gym_id, first_name, last_name, status, joined_date)"
            " values (%s, 'g1', %s, '', 'active', '2025-01-01')",
            [member, name],
        )
        codes = [f"{level}_risk", *([rule.code] if rule.code else [])]
        conn.execute(
            "insert into scoring.coach_actions values (%s, %s, %s, %s, %s, %s, %s, %s, 35, 70, %s, %s)",
            [day, member, coach, rule.type, rule.priority, rule.title, description, codes, level, last],
        )  # fmt: skip
