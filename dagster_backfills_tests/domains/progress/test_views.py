"""The status view, the dashboard's two queries with their plans, and the operators' queries."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest
from psycopg.rows import dict_row

from dagster_backfills_tests.domains.progress.small_school import save


def compute_cohorts(conn: psycopg.Connection) -> None:
    """Computes both cohorts like a backfill, and removes their marks."""
    conn.execute("insert into progress.cohort_stats values ('c1', 2, 3, 2, 17), ('c2', 1, 1, 1, 100)")
    conn.execute("delete from backfill.stale_marks")


def status(conn: psycopg.Connection, cohort: str) -> dict[str, Any]:
    with conn.cursor(row_factory=dict_row) as cur:
        row = cur.execute("select * from progress.cohort_status where cohort_id = %s", [cohort]).fetchone()
    assert row is not None
    return row


def test_a_computed_cohort_needs_no_backfill(school):
    compute_cohorts(school)
    found = status(school, "c1")
    del found["created_at"]
    assert found == {
        "cohort_id": "c1",
        "cohort_name": "One",
        "school_id": "s",
        "school_name": "School",
        "has_stats": True,
        "students": 2,
        "students_with_stats": 2,
        "leftover_stats": 0,
        "classes": 2,
        "is_missing": False,
        "needs_backfill": False,
        "stale_since": None,
    }


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        (
            "delete from progress.cohort_stats where cohort_id = 'c1'",
            {"has_stats": False, "is_missing": True},
        ),
        (
            "delete from progress.user_progress_stats where user_id = 'ann'",
            {"students_with_stats": 1, "is_missing": True},
        ),
        (
            "set session_replication_role = replica;"
            " update progress.users set deleted_at = now() where id = 'ann'",
            {"students": 1, "students_with_stats": 1, "leftover_stats": 1, "is_missing": True},
        ),
        (
            "update progress.user_progress_stats set cohort_id = 'c2' where user_id = 'ann'",
            {"students": 2, "students_with_stats": 1, "leftover_stats": 0, "is_missing": True},
        ),
        ("select backfill.mark_stale('progress/cohort_stats', array['c1'])", {"is_missing": False}),
        ("select backfill.mark_stale('progress/user_progress_stats', array['c1'])", {"is_missing": False}),
    ],
)
def test_a_cohort_with_missing_leftover_or_stale_rows_needs_a_backfill(school, change, expected):
    compute_cohorts(school)
    school.execute(change)
    found = status(school, "c1")
    assert {key: found[key] for key in expected} == expected
    assert found["needs_backfill"]
    assert (found["stale_since"] is not None) == ("mark_stale" in change)


def test_a_missing_and_a_leftover_row_do_not_cancel_out(school):
    compute_cohorts(school)
    school.execute("set session_replication_role = replica")
    school.execute("update progress.users set deleted_at = now() where id = 'ann'")
    school.execute("delete from progress.user_progress_stats where user_id = 'bob'")
    found = status(school, "c1")
    assert (found["students"], found["students_with_stats"], found["leftover_stats"]) == (1, 0, 1)
    assert found["needs_backfill"]


def test_an_empty_cohort_has_zeros_and_one_that_was_never_computed_needs_a_backfill(school):
    school.execute("set session_replication_role = replica")
    school.execute("insert into progress.cohorts (id, school_id, name) values ('c3', 's', 'Three')")
    found = status(school, "c3")
    assert (found["students"], found["classes"], found["has_stats"], found["stale_since"]) == (
        0,
        0,
        False,
        None,
    )
    assert found["needs_backfill"]


def test_stale_since_is_the_oldest_change(school):
    compute_cohorts(school)
    school.execute(
        "insert into backfill.stale_marks (asset, partition, marked_at) values"
        " ('progress/cohort_stats', 'c1', '2025-01-02'),"
        " ('progress/user_progress_stats', 'c1', '2025-01-01'),"
        " ('training/other', 'c1', '2024-01-01')"
    )
    assert f"{status(school, 'c1')['stale_since']:%F}" == "2025-01-01"


@pytest.fixture
def large_tables(school: psycopg.Connection) -> Iterator[psycopg.Connection]:
    """Enough rows for the planner to have a choice."""
    school.execute("set session_replication_role = replica")
    school.execute(
        """
        insert into progress.cohorts (id, school_id, name)
            select 'x' || i, 's', 'X' from generate_series(1, 2000) i;
        insert into progress.users
            select 'u' || i, 'x' || i % 2000 + 1, 'U', 'e' from generate_series(1, 40000) i;
        insert into progress.user_progress_stats select id, cohort_id, 1, 1, 8 from progress.users
            on conflict do nothing;
        insert into progress.cohort_stats select id, 20, 8, 1, 13 from progress.cohorts;
        analyze progress.cohorts, progress.users, progress.user_progress_stats, progress.cohort_stats;
        """
    )
    yield school


def plan_nodes(conn: psycopg.Connection, query: str) -> list[dict[str, Any]]:
    """Every plan node that reads a table."""
    nodes, todo = [], [conn.execute(f"explain (format json) {query}").fetchone()[0][0]["Plan"]]  # type: ignore[index]
    while todo:
        node = todo.pop()
        todo += node.get("Plans", [])
        if "Scan" in node["Node Type"]:
            nodes.append(node)
    return nodes


def test_the_dashboard_reads_a_cohort_by_one_indexed_lookup(large_tables):
    query = "select cohort_id, total_students, average_completion from progress.cohort_dashboard where cohort_id = 'x7'"
    nodes = plan_nodes(large_tables, query)
    assert [(node["Node Type"], node["Index Name"]) for node in nodes] == [
        ("Index Scan", "cohort_stats_pkey")
    ]
    assert large_tables.execute(query).fetchall() == [("x7", 20, 13)]


def test_the_dashboard_reads_a_cohorts_students_by_one_indexed_range(large_tables):
    query = (
        "select user_id, completion from progress.student_dashboard where cohort_id = 'x7' order by user_id"
    )
    nodes = plan_nodes(large_tables, query)
    assert {node["Index Name"] for node in nodes if "Index Name" in node} == {
        "user_progress_stats_cohort_id_idx"
    }
    assert {node.get("Relation Name", "user_progress_stats") for node in nodes} == {"user_progress_stats"}
    rows = large_tables.execute(query).fetchall()
    assert len(rows) == 20
    assert {completion for _, completion in rows} == {13}


def test_the_dashboard_does_not_scan_a_whole_table_for_names(large_tables):
    for query in (
        "select * from progress.cohort_dashboard where cohort_id = 'x7'",
        "select * from progress.student_dashboard where cohort_id = 'x7'",
    ):
        nodes = plan_nodes(large_tables, query)
        scanned = {node["Relation Name"] for node in nodes if node["Node Type"] == "Seq Scan"}
        assert scanned <= {"schools"}


def test_the_status_of_one_cohort_scans_no_whole_table(large_tables):
    nodes = plan_nodes(large_tables, "select * from progress.cohort_status where cohort_id = 'x7'")
    small = {"schools", "classes", "stale_marks"}
    assert {node["Relation Name"] for node in nodes if node["Node Type"] == "Seq Scan"} <= small


def test_a_students_completion_is_rounded_half_up_and_zero_without_questions(school):
    school.execute("update progress.user_progress_stats set questions_interacted = 1, total_questions = 8")
    school.execute("update progress.user_progress_stats set total_questions = 0 where user_id = 'cem'")
    rows = school.execute(
        "select user_name, completion from progress.student_dashboard order by user_id"
    ).fetchall()
    assert rows == [("ann", 13), ("bob", 13), ("cem", 0)]


MONITORING = {
    "progress_needs_backfill": "delete from progress.cohort_stats where cohort_id = 'c1'",
    "backfill_stale_longest": "select backfill.mark_stale('progress/cohort_stats', array['c1'])",
    "progress_average_mismatch": """
        update progress.cohort_stats set average_completion = 18 where cohort_id = 'c1'""",
    "progress_wrong_students": "delete from progress.user_progress_stats where user_id = 'ann'",
    "progress_impossible_counts": """
        update progress.user_progress_stats set questions_mastered = 4 where user_id = 'ann'""",
    "backfill_open_failures": """
        insert into backfill.failures (run_id, asset, partition, error_class, message)
        values ('r', 'progress/cohort_stats', 'c1', 'DataError', 'broken')""",
    "backfill_recent_runs": """
        insert into backfill.runs (run_id, root_run_id, assets, partitions)
        values ('r', 'r', '{progress/cohort_stats}', 2)""",
}


def test_every_query_of_the_operators_is_tested_here(project_root):
    monitoring = project_root / "sql" / "monitoring"
    files = {path.stem for mine in ("progress_*.sql", "backfill_*.sql") for path in monitoring.glob(mine)}
    assert files == MONITORING.keys()


@pytest.mark.parametrize("name", sorted(MONITORING))
def test_an_operators_query_returns_only_faulty_rows(school, project_root: Path, name: str):
    save(school, "ann", "q1", "k1", ["a"])
    save(school, "cem", "q4", "k2", ["a"])
    compute_cohorts(school)
    query = (project_root / "sql" / "monitoring" / f"{name}.sql").read_bytes()
    assert school.execute(query).fetchall() == []
    school.execute(MONITORING[name])
    assert len(school.execute(query).fetchall()) == 1
