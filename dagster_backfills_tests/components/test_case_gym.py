"""Cases D and E: a gym application with row-level security: scoring's sources, scores written back, months."""

import uuid
from collections.abc import Iterator
from contextlib import ExitStack

import psycopg
import pytest
from psycopg import sql

from dagster_backfills.components.assets import build_assets
from dagster_backfills.engine.triggers import apply
from dagster_backfills_tests.components.adopting import EXAMPLES, Adopter, adopter, load, query
from dagster_backfills_tests.components.applications import GYM, MONTHS
from dagster_backfills_tests.dagster.storing import failure_description

ALPHA, ANN = "a0000000-0000-0000-0000-000000000000", "10000000-0000-0000-0000-000000000001"
BOB, CID = ANN[:-1] + "2", ANN[:-1] + "3"
SOURCES = ("scoring_sources", "scoring_coaches", "scoring_visits")


@pytest.fixture
def application(conn: psycopg.Connection) -> psycopg.Connection:
    conn.execute(GYM + MONTHS)
    return conn


@pytest.fixture
def gym(application: psycopg.Connection, database_url: str) -> Iterator[dict[str, Adopter]]:
    """All of case D, with the triggers that it declares."""
    with ExitStack() as stack:
        made = {
            name: stack.enter_context(adopter(load(EXAMPLES / name), database_url))
            for name in (*SOURCES, "member_scores")
        }
        for a in made.values():
            apply(application, a.triggers())
        yield made


def settle(gym: dict[str, Adopter]) -> None:
    for _ in range(6):
        if not sum(a.settle() for a in gym.values()):
            return
    raise AssertionError("they keep each other busy")


def test_scorings_sources_are_filled_from_the_gyms_tables(
    application: psycopg.Connection, gym: dict[str, Adopter]
) -> None:
    gym["scoring_sources"].settle()
    gym["scoring_coaches"].refresh("all")
    gym["scoring_visits"].refresh("named", "2026-01-05", "2026-01-07", "2026-02-01")
    assert query(application, "select name from scoring.gyms order by 1") == ["Alpha", "Beta"]
    assert query(application, "select id, first_name, status from scoring.members order by 1") == [
        (ANN, "Ann", "active"), (BOB, "Bob", "active"), (CID, "Cid", "cancelled"),
    ]  # fmt: skip
    assert query(application, "select count(*) from scoring.coaches") == [1]
    assert query(application, "select member_id from scoring.member_coaches") == [ANN]
    assert query(application, "select member_id, visited_on::text from scoring.visits order by 2") == [
        (ANN, "2026-01-05"), (CID, "2026-01-07"), (ANN, "2026-02-01"),
    ]  # fmt: skip


def test_changes_in_the_gyms_tables_reach_scoring(
    application: psycopg.Connection, gym: dict[str, Adopter]
) -> None:
    settle(gym)
    application.execute("update members set status = 'cancelled' where id = %s", [BOB])
    application.execute("delete from member_coaches")
    application.execute(
        "insert into member_activities (member_id, activity_date, activity_type) values (%s, '2026-03-03', 'visit')",
        [BOB],
    )
    settle(gym)
    assert (BOB, "cancelled") in query(application, "select id, status from scoring.members")
    assert query(application, "select count(*) from scoring.member_coaches") == [0]
    assert (BOB, "2026-03-03") in query(application, "select member_id, visited_on::text from scoring.visits")


def test_the_newest_scores_are_written_back_only_where_they_differ(
    application: psycopg.Connection, gym: dict[str, Adopter]
) -> None:
    settle(gym)
    application.execute(
        "update scoring.members set (commitment_score, churn_risk_score, churn_risk_level) = (70, 20, 'low')"
    )
    settle(gym)
    wanted = [(70, 20, "low")] * 3
    assert (
        query(application, "select commitment_score, churn_risk_score, churn_risk_level from members")
        == wanted
    )
    assert query(application, "select count(*) from writes") == [3]
    application.execute("update scoring.members set commitment_score = 71 where id = %s", [ANN])
    settle(gym)
    gym["member_scores"].refresh("all")
    assert query(application, "select member_id::text from writes offset 3") == [ANN]
    assert query(application, "select count(*) from members where updated_at > '2021-01-01'") == [3]


def test_the_lineage_of_the_examples_has_no_cycle(gym: dict[str, Adopter]) -> None:
    import dagster as dg

    graph = dg.Definitions.merge(
        *(
            dg.Definitions(assets=[build_assets(a.backfill)], resources=a.resources if n == 0 else None)
            for n, a in enumerate(gym.values())
        )
    ).resolve_asset_graph()
    assert dg.AssetKey(["public", "members"]) in graph.get(dg.AssetKey(["scoring", "members"])).parent_keys
    assert graph.get(dg.AssetKey(["public", "member_scores"])).parent_keys == {
        dg.AssetKey(["scoring", "members"])
    }


def test_months_of_attendance_are_filled_by_a_declaration(
    application: psycopg.Connection, database_url: str
) -> None:
    with adopter(load(EXAMPLES / "member_months"), database_url) as a:
        apply(application, a.triggers())
        assert a.settle() == 1
        months = "select member_id::text, month::text, visits from attendance.member_months order by 1, 2"
        assert query(application, months) == [
            (ANN, "2026-01-01", 2), (ANN, "2026-02-01", 1), (CID, "2026-01-01", 1),
        ]  # fmt: skip
        application.execute("delete from member_activities where activity_date = '2026-02-01'")
        assert a.settle() == 1
        assert query(application, months) == [(ANN, "2026-01-01", 2), (CID, "2026-01-01", 1)]


def test_a_role_that_row_level_security_hides_rows_from_gets_an_error(
    application: psycopg.Connection, database_url: str
) -> None:
    """Without the error, the empty source would look as if all members had left."""
    role = f"login_{uuid.uuid4().hex[:8]}"
    name = sql.Identifier(role)
    application.execute(sql.SQL("create role {} login password 'x'").format(name))
    try:
        application.execute(sql.SQL("grant usage on schema public, attendance, backfill to {}").format(name))
        for schema in ("public", "attendance", "backfill"):
            application.execute(
                sql.SQL("grant all on all tables in schema {} to {}").format(sql.Identifier(schema), name)
            )
        with adopter(load(EXAMPLES / "member_months"), database_url) as a:
            a.settle()
            before = query(application, "select count(*) from attendance.member_months")
        own = f"{database_url}{'&' if '?' in database_url else '?'}options=-crole%3D{role}"
        with adopter(load(EXAMPLES / "member_months", partitions={"static": [ALPHA]}), own) as a:
            result = a.refresh("all", expect=False)
        assert "Row-level security hides rows" in failure_description(
            result
        ) and "bypassrls" in failure_description(result)
        assert query(application, "select count(*) from attendance.member_months") == before
    finally:
        application.execute(sql.SQL("drop owned by {}").format(name))
        application.execute(sql.SQL("drop role {}").format(name))
