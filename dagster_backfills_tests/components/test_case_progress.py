"""Case B: documents that a connector replicates into Postgres, under a role whose writes fire no trigger."""

import psycopg
import pytest

from dagster_backfills_tests.components.adopting import EXAMPLES, adopter, catalog, load, query
from dagster_backfills_tests.components.applications import LEARNING

STUDENTS = "select user_id, cohort_id, interacted, mastered from stats.students order by 1"
COHORTS = "select cohort_id, students, questions, average_completion from stats.cohorts order by 1"


@pytest.fixture
def application(conn: psycopg.Connection) -> psycopg.Connection:
    conn.execute(LEARNING)
    conn.execute("set session_replication_role = replica")  # like the connector's sessions
    return conn


def test_documents_become_statistics(application: psycopg.Connection, database_url: str) -> None:
    before = catalog(application, "learn")
    with adopter(load(EXAMPLES / "progress_stats"), database_url) as a:
        assert a.settle() == 1
    assert query(application, STUDENTS) == [("u1", "c1", 2, 1), ("u2", "c1", 0, 0), ("u3", "c2", 0, 0)]
    assert query(application, COHORTS) == [("c1", 2, 2, 50), ("c2", 1, 1, 0)]
    last = query(
        application, "select extract(epoch from last_activity_at) from stats.students where user_id = 'u1'"
    )
    assert last == [1700000006]
    assert catalog(application, "learn") == before


@pytest.mark.parametrize(
    ("change", "students", "cohorts"),
    [
        (
            """update learn."userProgress" set "deletedAt" = null where "_id" = 'p4'""",
            ("u2", "c1", 1, 1),
            ("c1", 2, 2, 75),
        ),
        ("""update learn.question set "deletedAt" = 1 where "_id" = 'q2'""", None, ("c1", 2, 1, 100)),
        ("""update learn.users set "deletedAt" = 1 where "_id" = 'u2'""", None, ("c1", 1, 2, 100)),
        (
            """update learn.users set "cohortId" = 'c2' where "_id" = 'u2'""",
            ("u2", "c2", 0, 0),
            ("c1", 1, 2, 100),
        ),
    ],
    ids=["an answer", "a question is deleted", "a student is deleted", "a student moves"],
)
def test_rows_that_the_connector_rewrites_are_recomputed(
    application: psycopg.Connection, database_url: str, change: str, students: object, cohorts: object
) -> None:
    with adopter(load(EXAMPLES / "progress_stats"), database_url) as a:
        a.settle()
        application.execute(change)
        assert a.settle() == 1
        assert a.tick() == 0
    assert students is None or students in query(application, STUDENTS)
    assert cohorts in query(application, COHORTS)
