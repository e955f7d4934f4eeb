"""The status of a declared backfill's partitions, and which ones are next."""

import psycopg
import pytest

from dagster_backfills.defs.progress.declared import PROGRESS
from dagster_backfills.engine.partition_status import PartitionStatus, needing_backfill
from dagster_backfills.engine.selection import Which

ENTRY = """
    insert into backfill.failures (run_id, asset, partition, unit, error_class, message, resolved_at)
    values ('r', %s, %s, %s, 'DataError', 'broken', %s)"""
NAMES = {
    "c-1": ("s2", "Autumn 50% intake"),
    "c-2": ("s1", "autumn_evening"),
    "c-3": ("s1", "ÅNGSTRÖM, Straße"),
    "c-4": ("s1", "春のコホート"),
    "odd, 'id' /%_ ö": ("s2", "Zulu"),
}


@pytest.fixture
def cohorts(conn: psycopg.Connection) -> psycopg.Connection:
    """Five up-to-date cohorts in two schools, created on consecutive days in the order of NAMES."""
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


def stand(conn: psycopg.Connection) -> dict[str, PartitionStatus]:
    return {each.partition: each for each in PROGRESS.partition_statuses(conn)}


def chosen(conn: psycopg.Connection, which: Which) -> list[str]:
    return list(PROGRESS.selection().choose(conn, which))


def test_every_partition_is_listed_oldest_first_with_its_name_and_status_columns(cohorts):
    found = PROGRESS.partition_statuses(cohorts)
    assert [each.partition for each in found] == list(NAMES)
    assert [each.name for each in found] == [name for _, name in NAMES.values()]
    assert found[0].more == {
        "school": "Board",
        "has_stats": True,
        "students": 0,
        "with_stats": 0,
        "classes": 0,
    }
    assert {str(each) for each in found} == {"up to date"}
    [first, *_] = PROGRESS.partition_statuses(cohorts, more=False)
    assert first.name == "Autumn 50% intake" and not first.more


def test_nothing_is_next_if_everything_is_up_to_date(cohorts):
    assert needing_backfill(PROGRESS.partition_statuses(cohorts)) == []


def test_missing_partitions_are_next_then_the_longest_stale_then_failed_ones(cohorts):
    mark(cohorts, "c-1", "2025-02-03")
    mark(cohorts, "c-2", "2025-02-02")
    mark(cohorts, "c-4", "2025-02-01")
    forget(cohorts, "c-4", "c-3")
    cohorts.execute(ENTRY, ["progress/cohort_stats", "odd, 'id' /%_ ö", None, None])
    order = [each.partition for each in needing_backfill(PROGRESS.partition_statuses(cohorts))]
    assert order == ["c-3", "c-4", "c-2", "c-1", "odd, 'id' /%_ ö"]


def test_cohorts_are_selected_by_their_status(cohorts):
    mark(cohorts, "c-4", "2025-02-02")
    mark(cohorts, "c-2", "2025-02-03")
    forget(cohorts, "odd, 'id' /%_ ö", "c-3")
    assert chosen(cohorts, Which.all) == list(NAMES)
    assert chosen(cohorts, Which.missing) == ["c-3", "odd, 'id' /%_ ö"]
    assert chosen(cohorts, Which.stale) == ["c-2", "c-4"]
    assert chosen(cohorts, Which.failed) == []
    assert str(stand(cohorts)["c-4"]) == "stale" and str(stand(cohorts)["c-3"]) == "missing"


def test_all_named_and_missing_partitions_are_selected_without_reading_open_work(cohorts):
    cohorts.execute("alter table backfill.undone rename to hidden")
    assert chosen(cohorts, Which.all) == list(NAMES) and chosen(cohorts, Which.missing) == []
    assert list(PROGRESS.selection().choose(cohorts, Which.named, ["c-2"])) == ["c-2"]
    with pytest.raises(psycopg.errors.UndefinedTable, match="undone"):
        chosen(cohorts, Which.needed)


def test_open_failures_are_counted_and_undone_partitions_are_shown(cohorts):
    cohorts.execute(ENTRY, ["progress/cohort_stats", "c-4", None, None])
    cohorts.execute(ENTRY, ["progress/user_progress_stats", "c-2", "u1", None])
    cohorts.execute(ENTRY, ["progress/user_progress_stats", "c-2", "u2", None])
    cohorts.execute(ENTRY, ["progress/cohort_stats", "c-1", None, "2025-01-01"])
    cohorts.execute(ENTRY, ["training/other", "c-3", None, None])
    cohorts.execute(ENTRY, ["progress/cohort_stats", "gone", None, None])
    cohorts.execute("insert into backfill.undone values ('progress/cohort_stats', 'c-1', 'r')")
    assert chosen(cohorts, Which.failed) == ["c-2", "c-4"]
    assert [str(each) for each in stand(cohorts).values()] == [
        "undone", "2 failed", "up to date", "1 failed", "up to date"
    ]  # fmt: skip
    assert [each.needs_backfill for each in stand(cohorts).values()] == [False, True, False, True, False]
