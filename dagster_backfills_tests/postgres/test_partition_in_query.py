"""Tables without a partition column: the query returns the partition with each row."""

import dagster as dg
import psycopg
import pytest

from dagster_backfills.engine.model import Query, Target, Write, WriteSet
from dagster_backfills_tests.dagster.storing import (
    failure_description,
    materialize,
    metadata,
    open_failures,
    rows,
    versions,
)

_TABLES = """
create table "Member" (id text primary key, "organizationId" text not null, points integer);
create table "Badge" (
    id bigint generated always as identity primary key, "memberId" text references "Member", kind text default 'plain',
    points integer check (points < 100), "updatedAt" timestamp(3), unique ("memberId")
);
insert into "Member" values ('m1', 'a', 1), ('m2', 'a', 2), ('m3', 'b', 3);
"""
_BADGES = """
select "organizationId" as partition, id as "memberId", points from "Member"
where "organizationId" = any(%(partition_keys)s) and (%(unit_keys)s::text[] is null or id = any(%(unit_keys)s))
"""
_UNITS = """
select "organizationId" as partition, id as unit from "Member" where "organizationId" = any(%(partition_keys)s)
"""


def badges(mode: str, query: str = _BADGES) -> dg.AssetsDefinition:
    target = Target(
        "public/badges",
        unit="memberId",
        mode=mode,  # type: ignore[arg-type]
        table=("public", "Badge"),
        partition_in_query=True,
        touched="updatedAt",
    )

    @dg.asset(
        key=["public", "badges"],
        partitions_def=dg.StaticPartitionsDefinition(["a", "b"]),
        backfill_policy=dg.BackfillPolicy.single_run(),
        metadata=target.metadata(),
    )
    def made() -> WriteSet:
        return WriteSet([Write(target, Query(query), units=Query(_UNITS))])

    return made


@pytest.fixture
def url(database_url: str, conn: psycopg.Connection) -> str:
    conn.execute(_TABLES)
    return database_url


@pytest.mark.parametrize("mode", ["upsert", "insert_missing"])
def test_rows_are_counted_by_the_partition_that_the_query_returns(url: str, mode: str) -> None:
    result = materialize(url, badges(mode), keys=("a", "b"))
    assert metadata(result, "public/badges", "a")["rows_inserted"] == 2
    assert metadata(result, "public/badges", "b")["rows_inserted"] == 1


def test_an_upsert_writes_differing_rows_and_deletes_none(url: str, conn: psycopg.Connection) -> None:
    materialize(url, badges("upsert"), keys=("a", "b"))
    conn.execute("""delete from "Badge" where "memberId" = 'm2'; delete from "Member" where id = 'm2';
        insert into "Member" values ('m9', 'z', 9); insert into "Badge" ("memberId") values ('m9');
        update "Member" set points = 30 where id = 'm3'""")
    before = versions(conn, '"Badge"')
    result = materialize(url, badges("upsert"), keys=("a", "b"))
    given = ("rows_inserted", "rows_updated", "rows_unchanged", "rows_deleted")
    counts = {key: metadata(result, "public/badges", key) for key in "ab"}
    assert [[counts[key].get(name, 0) for name in given] for key in "ab"] == [[0, 0, 1, 0], [0, 1, 0, 0]]
    assert [row[1:4] for row in rows(conn, '"Badge"', '"memberId"')] == [
        ("m1", "plain", 1), ("m3", "plain", 30), ("m9", "plain", None),
    ]  # fmt: skip
    assert len(set(before) & set(versions(conn, '"Badge"'))) == 2
    assert [row[4] is None for row in rows(conn, '"Badge"', '"memberId"')] == [False, False, True]


def test_only_the_bad_unit_fails(url: str, conn: psycopg.Connection) -> None:
    conn.execute("""update "Member" set points = 100 where id = 'm1'""")
    materialize(url, badges("insert_missing"), keys=("a", "b"))
    assert [row[1] for row in rows(conn, '"Badge"', '"memberId"')] == ["m2", "m3"]
    assert [entry[1:3] for entry in open_failures(conn)] == [("a", "m1")]


def test_a_query_that_returns_no_partition_is_rejected_before_anything_is_written(
    url: str, conn: psycopg.Connection
) -> None:
    result = materialize(
        url, badges("upsert", _BADGES.replace("as partition", "as org")), keys=("a", "b"), expect=False
    )
    assert "returns no column 'partition'; it returns org, memberId, points" in failure_description(result)
    assert rows(conn, '"Badge"') == []
