"""The state of every cohort, as the command line shows it and chooses by it.

Reads only, on a connection of the caller's. Not here: computing statistics, launching runs, printing.
"""

import unicodedata
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from difflib import get_close_matches
from pathlib import Path
from typing import Any, Literal, get_args

import psycopg
from psycopg.rows import class_row, tuple_row

from dagster_backfills.errors import UserError
from dagster_backfills.postgres.statements import load_statements

Which = Literal["all", "missing", "stale", "failed", "needed", "due"]


_STATEMENTS = load_statements(Path(__file__).with_name("status.sql"))


@dataclass(frozen=True)
class CohortStatus:
    """One row of `progress.cohort_status`.

    `students` are the active ones, `students_with_stats` those of them that have a row, `leftover_stats` rows
    of nobody who is an active student of the cohort. `is_missing`: the cohort or a student has no row, or a
    row is left over. `stale_since`: the oldest change that no computation has seen. Either of the two means
    `needs_backfill`.
    """

    cohort_id: str
    cohort_name: str
    school_id: str
    school_name: str
    created_at: datetime
    has_stats: bool
    students: int
    students_with_stats: int
    leftover_stats: int
    classes: int
    is_missing: bool
    needs_backfill: bool
    stale_since: datetime | None


def list_cohorts(conn: psycopg.Connection[Any], *, school: str | None = None) -> list[CohortStatus]:
    """Every cohort, or those of one school (its id, or its name in any case), by school and cohort name.

    Raises UserError for a school that there is none of.
    """
    return _statuses(conn, "list_cohorts", school_ids=None if school is None else _school_ids(conn, school))


def find_cohorts(conn: psycopg.Connection[Any], text: str) -> list[CohortStatus]:
    """The cohorts whose name contains `text`, in any case and any alphabet; no character is a wildcard."""
    # Folded here and not in SQL: what `lower()` knows of other alphabets depends on the database's locale.
    wanted = _folded(text)
    ids = [cohort_id for cohort_id, name in _names(conn, "cohort_names") if wanted in _folded(name)]
    return _statuses(conn, "cohorts_by_id", cohort_ids=ids) if ids else []


def next_cohort(conn: psycopg.Connection[Any]) -> CohortStatus | None:
    """The cohort to compute next: one with rows missing, the oldest first; else the one longest stale."""
    found = _statuses(conn, "next_cohort")
    return found[0] if found else None


def select_cohorts(conn: psycopg.Connection[Any], which: str) -> list[str]:
    """Ids of the cohorts to work on, oldest first (`stale`: longest stale first).

    `missing`: rows are missing or left over; `stale`: changed since they were computed; `failed`: with an
    open entry in the failure ledger for either asset; `needed`: any of the three; `due`: stale or without
    statistics, and not among those that failed a moment ago. Raises UserError for any other word.
    """
    if which not in get_args(Which):
        raise UserError(
            f"Unknown choice of cohorts: {which}.", hint=f"Choose one of {', '.join(get_args(Which))}."
        )
    with conn.cursor(row_factory=tuple_row) as cur:
        cur.execute(_STATEMENTS[f"select_{which}"])
        return [row[0] for row in cur]


def get_cohort(conn: psycopg.Connection[Any], cohort_id: str) -> CohortStatus:
    """One cohort by its id. Raises UserError, with the ids and names that come close, where there is none."""
    found = _statuses(conn, "cohorts_by_id", cohort_ids=[cohort_id])
    if found:
        return found[0]
    raise _unknown("cohort", cohort_id, _names(conn, "cohort_names"))


def _school_ids(conn: psycopg.Connection[Any], school: str) -> list[str]:
    names = _names(conn, "school_names")
    ids = [school_id for school_id, name in names if school == school_id or _folded(school) == _folded(name)]
    if not ids:
        raise _unknown("school", school, names)
    return ids


def _unknown(kind: str, wanted: str, names: Iterable[tuple[str, str]]) -> UserError:
    """The error for an id that is none, naming up to five that come close by id or by name."""
    by_spelling: dict[str, dict[str, str]] = {}
    for unit_id, name in names:
        for spelling in (unit_id, name):
            by_spelling.setdefault(_folded(spelling), {})[unit_id] = name
    close = {
        unit_id: name
        for spelling in get_close_matches(_folded(wanted), by_spelling, n=5, cutoff=0.6)
        for unit_id, name in by_spelling[spelling].items()
    }
    if close:
        suggestions = ", ".join(f"{unit_id} ({name})" for unit_id, name in list(close.items())[:5])
        hint = f"Did you mean {suggestions}?"
    else:
        hint = f"`backfills progress status` lists every {kind}."
    return UserError(f"There is no {kind} {wanted!r}.", hint=hint)


def _folded(text: str) -> str:
    return unicodedata.normalize("NFC", text).casefold()


def _names(conn: psycopg.Connection[Any], statement: str) -> list[tuple[str, str]]:
    with conn.cursor(row_factory=tuple_row) as cur:
        return cur.execute(_STATEMENTS[statement]).fetchall()


def _statuses(conn: psycopg.Connection[Any], statement: str, **binds: object) -> list[CohortStatus]:
    with conn.cursor(row_factory=class_row(CohortStatus)) as cur:
        return cur.execute(_STATEMENTS[statement], binds).fetchall()
