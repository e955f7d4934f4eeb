"""Listing, finding and choosing cohorts as the command line does."""

import psycopg
import pytest

from dagster_backfills.domains.progress.status import (
    find_cohorts,
    get_cohort,
    list_cohorts,
    next_cohort,
    select_cohorts,
)
from dagster_backfills.errors import UserError

NAMES = {
    "c-1": ("s2", "Autumn 50% intake"),
    "c-2": ("s1", "autumn_evening"),
    "c-3": ("s1", "ÅNGSTRÖM, Straße"),
    "c-4": ("s1", "春のコホート"),
    "odd, 'id' /%_ ö": ("s2", "Zulu"),
}


@pytest.fixture
def cohorts(conn: psycopg.Connection) -> psycopg.Connection:
    """Five cohorts in two schools, computed and fresh; made one day after another in the order of NAMES."""
    conn.execute("insert into progress.schools values ('s1', 'Élan'), ('s2', 'Board')")
    for day, (cohort, (school, name)) in enumerate(NAMES.items(), start=1):
        conn.execute(
            "insert into progress.cohorts values (%s, %s, %s, %s)", [cohort, school, name, f"2025-01-0{day}"]
        )
        conn.execute("insert into progress.cohort_stats values (%s, 0, 0, 0, 0)", [cohort])
    conn.execute("delete from backfill.stale_marks")
    return conn


def mark(conn: psycopg.Connection, cohort: str, since: str) -> None:
    conn.execute(
        "insert into backfill.stale_marks (asset, partition, marked_at)"
        " values ('progress/cohort_stats', %s, %s)",
        [cohort, since],
    )


def forget(conn: psycopg.Connection, *ids: str) -> None:
    conn.execute("delete from progress.cohort_stats where cohort_id = any(%s)", [list(ids)])


def ids(found: list) -> list[str]:
    return [cohort.cohort_id for cohort in found]


def test_cohorts_are_listed_by_school_and_name(cohorts):
    found = list_cohorts(cohorts)
    assert [cohort.school_name for cohort in found] == ["Board", "Board", "Élan", "Élan", "Élan"]
    assert ids(found)[:2] == ["c-1", "odd, 'id' /%_ ö"]
    assert all(cohort.has_stats and not cohort.needs_backfill for cohort in found)


@pytest.mark.parametrize("school", ["s1", "Élan", "éLAN"])
def test_cohorts_of_one_school_are_listed_by_its_id_or_name(cohorts, school):
    assert sorted(ids(list_cohorts(cohorts, school=school))) == ["c-2", "c-3", "c-4"]


def test_an_unknown_school_is_an_error_that_names_a_close_one(cohorts):
    with pytest.raises(UserError) as error:
        list_cohorts(cohorts, school="Bord")
    assert error.value.message == "There is no school 'Bord'."
    assert error.value.hint == "Did you mean s2 (Board)?"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("AUTUMN", ["c-1", "c-2"]),
        ("0% in", ["c-1"]),
        ("%", ["c-1"]),
        ("_", ["c-2"]),
        ("ångström", ["c-3"]),
        ("a\u030angstro\u0308m", ["c-3"]),
        ("STRASSE", ["c-3"]),
        ("コホート", ["c-4"]),
        ("winter", []),
    ],
)
def test_a_cohort_is_found_by_part_of_its_name_in_any_case_and_alphabet(cohorts, text, expected):
    assert sorted(ids(find_cohorts(cohorts, text))) == expected


def test_nothing_is_next_where_everything_is_computed(cohorts):
    assert next_cohort(cohorts) is None


def test_missing_cohorts_come_before_stale_ones_and_the_longest_stale_first(cohorts):
    mark(cohorts, "c-1", "2025-02-03")
    mark(cohorts, "c-2", "2025-02-02")
    mark(cohorts, "c-4", "2025-02-01")
    forget(cohorts, "c-4", "c-3")
    order = []
    while (following := next_cohort(cohorts)) is not None:
        order.append(following.cohort_id)
        cohorts.execute(
            "insert into progress.cohort_stats values (%s, 0, 0, 0, 0) on conflict do nothing", [order[-1]]
        )
        cohorts.execute("delete from backfill.stale_marks where partition = %s", [order[-1]])
    assert order == ["c-3", "c-4", "c-2", "c-1"]


def test_cohorts_are_chosen_by_what_they_need(cohorts):
    mark(cohorts, "c-4", "2025-02-02")
    mark(cohorts, "c-2", "2025-02-03")
    forget(cohorts, "odd, 'id' /%_ ö", "c-3")
    assert select_cohorts(cohorts, "all") == list(NAMES)
    assert select_cohorts(cohorts, "missing") == ["c-3", "odd, 'id' /%_ ö"]
    assert select_cohorts(cohorts, "stale") == ["c-4", "c-2"]
    assert select_cohorts(cohorts, "failed") == []


def test_failed_cohorts_are_those_with_an_open_entry_in_the_ledger(cohorts):
    entry = """
        insert into backfill.failures (run_id, asset, partition, unit, error_class, message, resolved_at)
        values ('r', %s, %s, %s, 'DataError', 'broken', %s)"""
    cohorts.execute(entry, ["progress/cohort_stats", "c-4", None, None])
    cohorts.execute(entry, ["progress/user_progress_stats", "c-2", "u1", None])
    cohorts.execute(entry, ["progress/user_progress_stats", "c-2", "u2", None])
    cohorts.execute(entry, ["progress/cohort_stats", "c-1", None, "2025-01-01"])
    cohorts.execute(entry, ["training/other", "c-3", None, None])
    cohorts.execute(entry, ["progress/cohort_stats", "gone", None, None])
    assert select_cohorts(cohorts, "failed") == ["c-2", "c-4"]


def test_an_unknown_choice_is_an_error_that_names_the_choices(cohorts):
    with pytest.raises(UserError) as error:
        select_cohorts(cohorts, "new")  # type: ignore[arg-type]
    assert error.value.message == "Unknown choice of cohorts: new."
    assert error.value.hint == "Choose one of all, missing, stale, failed, needed, due."


def test_one_cohort_is_read_by_its_id(cohorts):
    mark(cohorts, "odd, 'id' /%_ ö", "2025-02-03")
    found = get_cohort(cohorts, "odd, 'id' /%_ ö")
    assert (found.cohort_name, found.school_id, found.needs_backfill) == ("Zulu", "s2", True)
    assert f"{found.created_at:%F} {found.stale_since:%F}" == "2025-01-05 2025-02-03"


def test_an_unknown_cohort_is_an_error_with_what_comes_close_by_id_or_name(cohorts):
    with pytest.raises(UserError) as error:
        get_cohort(cohorts, "zulu")
    assert error.value.message == "There is no cohort 'zulu'."
    assert error.value.hint == "Did you mean odd, 'id' /%_ ö (Zulu)?"
    with pytest.raises(UserError, match=r"Did you mean c-1 \(Autumn 50% intake\)\?"):
        get_cohort(cohorts, "c1")
    with pytest.raises(UserError, match="`backfills progress status` lists every cohort"):
        get_cohort(cohorts, "???")
