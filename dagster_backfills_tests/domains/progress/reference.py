"""Both statistics computed from the source rows slowly and plainly, to compare fast computations with.

Follows the definitions, and uses SQL only to read tables. Not here: staleness.
"""

import math
from dataclasses import dataclass
from datetime import datetime
from fractions import Fraction
from typing import Any

import psycopg
from psycopg.rows import class_row, dict_row

TABLES = ("schools", "cohorts", "users", "classes", "modules", "questions", "user_progress")


@dataclass(frozen=True)
class UserStats:
    user_id: str
    cohort_id: str
    questions_interacted: int
    questions_mastered: int
    total_questions: int
    last_activity_at: datetime | None


@dataclass(frozen=True)
class CohortStats:
    cohort_id: str
    total_students: int
    total_questions: int
    total_modules: int
    average_completion: int


Sources = dict[str, list[dict[str, Any]]]


def read_sources(conn: psycopg.Connection[Any]) -> Sources:
    """Every source table as a list of rows, in one snapshot if `conn` is in autocommit mode."""
    with conn.cursor(row_factory=dict_row) as cur:
        return {table: cur.execute(f"select * from progress.{table}").fetchall() for table in TABLES}  # noqa: S608


def user_stats(sources: Sources) -> dict[str, UserStats]:
    """A row per active student, by user."""
    cohort_of_class = {row["id"]: row["cohort_id"] for row in sources["classes"]}
    totals = question_totals(sources)
    progress_of: dict[str, list[dict[str, Any]]] = {}
    for row in sources["user_progress"]:
        progress_of.setdefault(row["user_id"], []).append(row)

    result = {}
    for user in sources["users"]:
        if user["deleted_at"] is not None:
            continue
        interacted = mastered = 0
        last: datetime | None = None
        for row in progress_of.get(user["id"], []):
            if cohort_of_class[row["class_id"]] != user["cohort_id"]:
                continue
            if len(row["selected_options"]) > 0 or len(row["eliminated_options"]) > 0:
                interacted += 1
            if row["is_mastered"]:
                mastered += 1
            at = row["last_attempt_at"]
            if at is not None and (last is None or at > last):
                last = at
        total = totals[user["cohort_id"]]
        result[user["id"]] = UserStats(user["id"], user["cohort_id"], interacted, mastered, total, last)
    return result


def cohort_stats(sources: Sources) -> dict[str, CohortStats]:
    """A row per cohort, by cohort."""
    students: dict[str, list[UserStats]] = {row["id"]: [] for row in sources["cohorts"]}
    for stats in user_stats(sources).values():
        students[stats.cohort_id].append(stats)
    cohort_of_class = {row["id"]: row["cohort_id"] for row in sources["classes"]}
    modules = dict.fromkeys(students, 0)
    for module in sources["modules"]:
        modules[cohort_of_class[module["class_id"]]] += 1
    totals = question_totals(sources)

    result = {}
    for cohort, members in students.items():
        average = 0
        if members and totals[cohort] > 0:
            percents = [Fraction(100 * member.questions_interacted, totals[cohort]) for member in members]
            average = round_half_up(sum(percents, Fraction()) / len(percents))
        result[cohort] = CohortStats(cohort, len(members), totals[cohort], modules[cohort], average)
    return result


def question_totals(sources: Sources) -> dict[str, int]:
    """The number of questions of every cohort, through its classes and modules."""
    cohort_of_class = {row["id"]: row["cohort_id"] for row in sources["classes"]}
    class_of_module = {row["id"]: row["class_id"] for row in sources["modules"]}
    totals = {row["id"]: 0 for row in sources["cohorts"]}
    for question in sources["questions"]:
        totals[cohort_of_class[class_of_module[question["module_id"]]]] += 1
    return totals


def round_half_up(value: Fraction) -> int:
    return math.floor(value + Fraction(1, 2))


def stored_user_stats(conn: psycopg.Connection[Any]) -> dict[str, UserStats]:
    """The rows of `progress.user_progress_stats`."""
    with conn.cursor(row_factory=class_row(UserStats)) as cur:
        cur.execute(
            """
            select user_id, cohort_id, questions_interacted, questions_mastered, total_questions,
                last_activity_at
            from progress.user_progress_stats
            """
        )
        return {row.user_id: row for row in cur}


def stored_cohort_stats(conn: psycopg.Connection[Any]) -> dict[str, CohortStats]:
    """The rows of `progress.cohort_stats`."""
    with conn.cursor(row_factory=class_row(CohortStats)) as cur:
        cur.execute(
            """
            select cohort_id, total_students, total_questions, total_modules, average_completion
            from progress.cohort_stats
            """
        )
        return {row.cohort_id: row for row in cur}
