"""The Open University Learning Analytics data as progress data: 22 presentations of real courses.

Kuzilek, Hlosta, Zdrahal: Open University Learning Analytics dataset, Scientific Data 4:170171 (2017), CC BY 4.0.
It is not part of this repository. `OULAD_DIR` names the folder of its gzipped CSV files. The default is
`../shared/data/oulad`, next to the checkout.

School: course. Cohort: its presentation. User: registration, deleted with the unregistration. Class: type of
assessment. Module and question: assessment. Progress row: submission, mastered when it was on time.
"""

import csv
import gzip
import os
from collections.abc import Iterable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import psycopg
import pytest
from psycopg import sql

_MONTHS = {"B": 2, "J": 10}
_MISSING = ("", "?")


def oulad_folder(project_root: Path) -> Path:
    """The folder of the files. Skips the test with a message if there is none."""
    folder = Path(os.environ.get("OULAD_DIR") or project_root.parent / "shared" / "data" / "oulad")
    if not (folder / "studentAssessment.csv.gz").is_file():
        pytest.skip(
            f"The Open University's data is not in {folder}; set OULAD_DIR to the folder that has it."
        )
    return folder


def presentation_start(presentation: str) -> datetime:
    """The first day of a presentation: 2013B is 1 February 2013, 2013J is 1 October 2013. Days are counted from it."""
    return datetime(int(presentation[:4]), _MONTHS[presentation[4]], 1, tzinfo=UTC)


def load_oulad(conn: psycopg.Connection[Any], folder: Path, *, realtime: bool = False) -> None:
    """Loads everything in one transaction. Without `realtime`, triggers are disabled."""
    with conn.transaction():
        if not realtime:
            conn.execute("set local session_replication_role = replica")
        courses = list(_rows(folder, "courses"))
        assessments = list(_rows(folder, "assessments"))
        _copy(conn, "schools", ("id", "name"), sorted({(c["code_module"],) * 2 for c in courses}))
        _copy(conn, "cohorts", ("id", "school_id", "name", "created_at"), map(_cohort, courses))
        _copy(
            conn, "classes", ("id", "cohort_id"), sorted({(_class(a), _presentation(a)) for a in assessments})
        )
        _copy(conn, "modules", ("id", "class_id"), ((a["id_assessment"], _class(a)) for a in assessments))
        _copy(conn, "questions", ("id", "module_id"), ((a["id_assessment"],) * 2 for a in assessments))
        registrations = list(_rows(folder, "studentRegistration"))
        columns = ("id", "cohort_id", "name", "email", "deleted_at")
        _copy(conn, "users", columns, map(_user, registrations))
        submissions = _submissions(folder, assessments, {_registration(r) for r in registrations})
        columns = ("user_id", "question_id", "class_id", "selected_options", "is_mastered", "last_attempt_at")
        _copy(conn, "user_progress", columns, submissions)


def _submissions(
    folder: Path, assessments: list[dict[str, str]], registered: set[str]
) -> Iterator[tuple[Any, ...]]:
    by_id = {a["id_assessment"]: a for a in assessments}
    for row in _rows(folder, "studentAssessment"):
        assessment = by_id[row["id_assessment"]]
        user = f"{_presentation(assessment)}/{row['id_student']}"
        if user not in registered:
            continue
        submitted, due = int(row["date_submitted"]), assessment["date"]
        yield (
            user,
            row["id_assessment"],
            _class(assessment),
            ["submitted"],
            due not in _MISSING and submitted <= int(due),
            presentation_start(assessment["code_presentation"]) + timedelta(days=submitted),
        )


def _rows(folder: Path, name: str) -> Iterator[dict[str, str]]:
    with gzip.open(folder / f"{name}.csv.gz", "rt", encoding="utf-8", newline="") as file:
        yield from csv.DictReader(file)


def _presentation(row: dict[str, str]) -> str:
    return f"{row['code_module']}/{row['code_presentation']}"


def _class(assessment: dict[str, str]) -> str:
    return f"{_presentation(assessment)}/{assessment['assessment_type']}"


def _registration(row: dict[str, str]) -> str:
    return f"{_presentation(row)}/{row['id_student']}"


def _cohort(course: dict[str, str]) -> tuple[Any, ...]:
    code, presentation = course["code_module"], course["code_presentation"]
    return _presentation(course), code, f"{code} {presentation}", presentation_start(presentation)


def _user(row: dict[str, str]) -> tuple[Any, ...]:
    left = row["date_unregistration"]
    start = presentation_start(row["code_presentation"])
    return (
        _registration(row),
        _presentation(row),
        f"Student {row['id_student']}",
        f"{row['id_student']}@example.org",
        None if left in _MISSING else start + timedelta(days=int(left)),
    )


def _copy(conn: psycopg.Connection[Any], table: str, columns: tuple[str, ...], rows: Iterable[Any]) -> None:
    names = sql.SQL(", ").join(map(sql.Identifier, columns))
    statement = sql.SQL("copy progress.{} ({}) from stdin").format(sql.Identifier(table), names)
    with conn.cursor().copy(statement) as copy:
        for row in rows:
            copy.write_row(row)
