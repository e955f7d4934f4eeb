"""Case A: a compliance application's own table of completions, filled without changes to it."""

from typing import Any

import psycopg
import pytest

from dagster_backfills.engine.triggers import apply, remove
from dagster_backfills_tests.components.adopting import EXAMPLES, Adopter, adopter, catalog, load, query
from dagster_backfills_tests.components.applications import COMPLIANCE

DUE = """
-- name: incomplete
select m."organizationId" from public."Member" as m
where not m.deactivated
    and (select count(*) from public."EmployeeTrainingVideoCompletion" as c where c."memberId" = m.id) < 5;
"""
RECORDS = 'select "memberId", "videoId" from public."EmployeeTrainingVideoCompletion" order by 1, 2'
FIVE = [f"sat-{n}" for n in range(1, 6)]


@pytest.fixture
def application(conn: psycopg.Connection) -> psycopg.Connection:
    conn.execute(COMPLIANCE)
    return conn


def records(conn: psycopg.Connection) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for member, video in query(conn, RECORDS):
        found.setdefault(member, []).append(video)
    return found


def test_every_member_who_is_not_deactivated_gets_the_five_and_nothing_else_changes(
    application: psycopg.Connection, database_url: str
) -> None:
    before = catalog(application, "public")
    with adopter(load(EXAMPLES / "training_completions"), database_url) as a:
        a.refresh("all")
    assert records(application) == {member: FIVE for member in ("mem_1", "mem_2", "mem_4")}
    old = query(
        application,
        """select "completedAt"::text from public."EmployeeTrainingVideoCompletion"
        where id = 'evc_old' and "memberId" = 'mem_1'""",
    )
    assert old == ["2024-05-02 08:00:00.456"]
    ids = query(
        application, "select id from public.\"EmployeeTrainingVideoCompletion\" where id <> 'evc_old'"
    )
    assert len(ids) == 14 and all(id.startswith("evc_") for id in ids)
    assert catalog(application, "public") == before


def test_one_organization_can_be_filled_alone(application: psycopg.Connection, database_url: str) -> None:
    with adopter(load(EXAMPLES / "training_completions"), database_url) as a:
        a.refresh("named", "org_b")
    assert records(application) == {"mem_1": ["sat-1"], "mem_4": FIVE}


def follow(a: Adopter, conn: psycopg.Connection) -> None:
    """Fills, adds a member, reactivates one, and checks that each is followed and no run starts without a reason."""
    assert a.settle() == 1
    assert a.tick() == 0
    conn.execute(
        """insert into public."Member" (id, "organizationId", role) values ('mem_9', 'org_c', 'employee')"""
    )
    conn.execute("""update public."Member" set deactivated = false where id = 'mem_3'""")
    assert a.settle() == 1
    assert records(conn) == {member: FIVE for member in ("mem_1", "mem_2", "mem_3", "mem_4", "mem_9")}
    assert a.tick() == 0


def test_triggers_keep_it_filled(application: psycopg.Connection, database_url: str) -> None:
    with adopter(load(EXAMPLES / "training_completions"), database_url) as a:
        before = catalog(application, "public", "backfill")
        apply(application, a.triggers())
        assert all(triggers.present(application) for triggers in a.triggers())
        follow(a, application)
        remove(application, a.triggers())
        assert catalog(application, "public", "backfill") == before


def test_polling_keeps_it_filled_without_triggers(application: psycopg.Connection, database_url: str) -> None:
    before = catalog(application, "public")
    with adopter(load(EXAMPLES / "training_completions", stale_by="polling"), database_url) as a:
        follow(a, application)
    assert catalog(application, "public") == before


def test_a_due_statement_keeps_it_filled_without_triggers(
    application: psycopg.Connection, database_url: str, tmp_path: Any
) -> None:
    from dagster_backfills_tests.components.adopting import copied

    folder = copied(
        tmp_path,
        "training_completions",
        ('stale_when: {public."Member": organizationId}', "due: incomplete"),
    )
    (folder / "queries.sql").write_text((folder / "queries.sql").read_text() + DUE)
    before = catalog(application, "public")
    with adopter(load(folder), database_url) as a:
        follow(a, application)
    assert catalog(application, "public") == before
