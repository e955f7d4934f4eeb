"""A school small enough to compute by hand."""

from collections.abc import Iterator

import psycopg
import pytest
from psycopg import sql


@pytest.fixture
def school(conn: psycopg.Connection) -> psycopg.Connection:
    """Two cohorts: c1 with two classes, three questions and the students ann and bob; c2 with one of each."""
    conn.execute("insert into progress.schools values ('s', 'School')")
    conn.execute(
        "insert into progress.cohorts (id, school_id, name) values ('c1', 's', 'One'), ('c2', 's', 'Two')"
    )
    conn.execute("insert into progress.classes values ('k1', 'c1'), ('k1b', 'c1'), ('k2', 'c2')")
    conn.execute("insert into progress.modules values ('m1', 'k1'), ('m1b', 'k1b'), ('m2', 'k2')")
    conn.execute(
        "insert into progress.questions values ('q1', 'm1'), ('q2', 'm1'), ('q3', 'm1b'), ('q4', 'm2')"
    )
    for user, cohort in (("ann", "c1"), ("bob", "c1"), ("cem", "c2")):
        conn.execute("insert into progress.users values (%s, %s, %s, 'e@example.org')", [user, cohort, user])
    conn.execute("delete from backfill.stale_marks")
    return conn


@pytest.fixture
def server_role(school: psycopg.Connection) -> Iterator[sql.Identifier]:
    """A role for one test, because roles belong to the whole server."""
    role = sql.Identifier(f"app_{school.info.dbname}")
    school.execute(sql.SQL("create role {}").format(role))
    yield role
    school.execute("reset role")
    school.execute(sql.SQL("drop owned by {}").format(role))
    school.execute(sql.SQL("drop role {}").format(role))
