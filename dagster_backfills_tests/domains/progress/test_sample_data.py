"""The sample data: the requested size, realistic distributions, reproducible by seed, and loaded unchanged."""

import statistics
import unicodedata
from collections import Counter
from dataclasses import replace
from typing import Any

import psycopg
import pytest
from psycopg import sql
from psycopg.rows import namedtuple_row

from dagster_backfills.defs.progress.declared import PROGRESS
from dagster_backfills.samples.progress import DEMO, load_demo, load_progress
from dagster_backfills.samples.progress_names import ODD_IDS
from dagster_backfills.samples.progress_rows import ProgressData, ProgressSize, generate_progress
from dagster_backfills_tests.domains.progress.reference import (
    cohort_stats,
    read_sources,
    stored_cohort_stats,
    stored_user_stats,
    user_stats,
)

SMALL = ProgressSize(schools=3, cohorts=40, users=600, progress=6_000, questions=40, odd_ids=len(ODD_IDS))


def rows(data: ProgressData, table: str) -> list[dict[str, Any]]:
    if table == "user_progress":
        return [row for chunk in data.progress_chunks() for row in chunk.to_pylist()]
    return data.tables[table].to_pylist()


@pytest.fixture(scope="module")
def small() -> ProgressData:
    return generate_progress(SMALL, seed=7)


def test_the_same_seed_gives_the_same_rows_and_another_seed_others(small):
    again, other = generate_progress(SMALL, seed=7), generate_progress(SMALL, seed=8)
    for table in (*small.tables, "user_progress"):
        assert rows(small, table) == rows(again, table)
    assert rows(small, "user_progress") != rows(other, "user_progress")


@pytest.mark.parametrize("size", [SMALL, DEMO, ProgressSize(schools=1, cohorts=1, users=1, progress=0)])
def test_there_are_exactly_as_many_rows_as_requested(size):
    data = generate_progress(size, seed=3)
    counts = (len(rows(data, "schools")), len(rows(data, "cohorts")), len(rows(data, "users")))
    assert counts == (size.schools, size.cohorts, size.users)
    assert len(rows(data, "user_progress")) == size.progress


def test_more_progress_than_students_times_questions_is_an_error():
    with pytest.raises(ValueError, match="progress rows don't fit"):
        generate_progress(replace(SMALL, progress=10_000_000), seed=1)


def test_the_distributions_are_realistic(small):
    users = rows(small, "users")
    of_cohort = Counter(user["cohort_id"] for user in users)
    cohorts = [row["id"] for row in rows(small, "cohorts")]
    answered = Counter(row["user_id"] for row in rows(small, "user_progress"))
    class_of_cohort = {row["id"]: row["cohort_id"] for row in rows(small, "classes")}
    class_of_module = {row["id"]: row["class_id"] for row in rows(small, "modules")}
    asking = {class_of_cohort[class_of_module[row["module_id"]]] for row in rows(small, "questions")}

    assert max(of_cohort.values()) > 3 * statistics.median(of_cohort.values())
    assert set(cohorts) - set(of_cohort), "a cohort without students"
    assert set(cohorts) - asking, "a cohort without questions"
    assert 0.03 < sum(user["deleted_at"] is not None for user in users) / len(users) < 0.2
    active = [user["id"] for user in users if user["deleted_at"] is None]
    assert 0.1 < sum(answered[user] == 0 for user in active) / len(active) < 0.6
    assert set(ODD_IDS) <= set(cohorts)
    scripts = {unicodedata.name(char).split()[0] for user in users for char in user["name"] if char.isalpha()}
    assert {"LATIN", "CYRILLIC", "ARABIC", "HEBREW", "CJK", "DEVANAGARI", "HANGUL"} <= scripts


def test_progress_is_in_the_students_own_cohort_never_before_it_and_never_twice(small):
    cohort_of_user = {row["id"]: row["cohort_id"] for row in rows(small, "users")}
    cohort_of_class = {row["id"]: row["cohort_id"] for row in rows(small, "classes")}
    class_of_module = {row["id"]: row["class_id"] for row in rows(small, "modules")}
    class_of_question = {row["id"]: class_of_module[row["module_id"]] for row in rows(small, "questions")}
    began = {row["id"]: row["created_at"] for row in rows(small, "cohorts")}
    seen = set()
    for row in rows(small, "user_progress"):
        cohort = cohort_of_user[row["user_id"]]
        assert cohort_of_class[row["class_id"]] == cohort
        assert class_of_question[row["question_id"]] == row["class_id"]
        assert row["last_attempt_at"] is None or row["last_attempt_at"] >= began[cohort]
        seen.add((row["user_id"], row["question_id"]))
    assert len(seen) == SMALL.progress


def test_the_tables_have_the_generated_rows_and_neither_statistics_nor_marks(conn, small):
    load_progress(conn, SMALL, seed=7)
    stored = read_sources(conn)
    for table in small.tables:
        assert by_key(stored[table]) == by_key(rows(small, table))
    progress = stored["user_progress"]
    assert Counter(row["is_mastered"] for row in progress) == Counter(
        row["is_mastered"] for row in rows(small, "user_progress")
    )
    expected = {(row["user_id"], row["question_id"]): row for row in rows(small, "user_progress")}
    for row in progress:
        generated = expected.pop((row["user_id"], row["question_id"]))
        assert row["last_attempt_at"] == generated["last_attempt_at"]
        assert (row["selected_options"] == []) == (generated["selected_options"] == "{}")
    assert not expected
    assert stored_user_stats(conn) == {}
    assert not any(cohort.stale_since for cohort in PROGRESS.partition_statuses(conn))
    assert sum(cohort.missing for cohort in PROGRESS.partition_statuses(conn)) == SMALL.cohorts


def by_key(table: list[dict[str, Any]]) -> dict[str, dict[str, Any]]:
    return {row["id"]: row for row in table}


def test_loading_with_triggers_updates_every_student_and_marks_every_cohort(conn):
    load_progress(conn, SMALL, seed=7, realtime=True)
    assert stored_user_stats(conn) == user_stats(read_sources(conn))
    assert sum(bool(cohort.stale_since) for cohort in PROGRESS.partition_statuses(conn)) == SMALL.cohorts


def test_the_demo_has_every_kind_of_gap(conn):
    load_progress(conn, replace(SMALL, gaps=True), seed=7)
    cursor = conn.cursor(row_factory=namedtuple_row)
    cohorts = cursor.execute("select * from progress.cohort_status").fetchall()
    assert Counter(cohort.has_stats for cohort in cohorts) == {False: 16, True: 24}
    assert sum(cohort.stale_since is not None for cohort in cohorts) >= 4
    assert any(cohort.leftover_stats and cohort.students_with_stats < cohort.students for cohort in cohorts)
    assert sum(not cohort.needs_backfill for cohort in cohorts) >= 6
    # Cohorts that are neither missing nor stale are correct.
    sources = read_sources(conn)
    users, averages = user_stats(sources), cohort_stats(sources)
    stored = stored_user_stats(conn)
    for cohort in (cohort.cohort_id for cohort in cohorts if not cohort.needs_backfill):
        assert stored_cohort_stats(conn)[cohort] == averages[cohort]
        assert {u: s for u, s in stored.items() if s.cohort_id == cohort} == {
            u: s for u, s in users.items() if s.cohort_id == cohort
        }


def test_a_role_other_than_a_superuser_can_load_them(conn):
    role = sql.Identifier(f"loader_{conn.info.dbname}")
    conn.execute(sql.SQL("create role {}").format(role))
    try:
        for schema in ("progress", "backfill"):
            name = sql.Identifier(schema)
            conn.execute(sql.SQL("grant usage on schema {} to {}").format(name, role))
            conn.execute(sql.SQL("grant all on all tables in schema {} to {}").format(name, role))
        conn.execute(sql.SQL("set role {}").format(role))
        load_progress(conn, SMALL, seed=7)
        conn.execute("reset role")
        assert conn.execute("select count(*) from progress.user_progress").fetchone() == (SMALL.progress,)
        assert stored_user_stats(conn) == {}
        assert not any(cohort.stale_since for cohort in PROGRESS.partition_statuses(conn))
    finally:
        conn.execute("reset role")
        conn.execute(sql.SQL("drop owned by {}").format(role))
        conn.execute(sql.SQL("drop role {}").format(role))


def test_tables_with_rows_are_unchanged(conn: psycopg.Connection):
    conn.execute("insert into progress.schools values ('mine', 'Mine')")
    assert load_demo(conn) == "The tables of the progress domain have rows: no sample data was loaded."
    assert conn.execute("select count(*) from progress.schools").fetchone() == (1,)


def test_the_demo_is_loaded_once(conn: psycopg.Connection):
    assert load_demo(conn).startswith("Loaded 40 cohorts, 3,000 users and 60,000 progress rows")
    assert load_demo(conn) == "The tables of the progress domain have rows: no sample data was loaded."
    assert conn.execute("select count(*) from progress.user_progress").fetchone() == (60_000,)
