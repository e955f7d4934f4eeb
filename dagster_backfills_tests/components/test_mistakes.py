"""Declarations with a mistake: each gets one clear message with file and line, before anything is written."""

from pathlib import Path

import psycopg
import pytest

from dagster_backfills.components.inspection import inspect
from dagster_backfills.components.loading import declared
from dagster_backfills.components.planning import plan_backfill
from dagster_backfills.dagster.resource import PostgresResource
from dagster_backfills.engine.selection import Which
from dagster_backfills.errors import UserError
from dagster_backfills_tests.components.adopting import (
    EXAMPLES,
    adopter,
    copied,
    query,
)
from dagster_backfills_tests.components.applications import GYM, MONTHS
from dagster_backfills_tests.dagster.storing import failure_description

Change = tuple[str, str]
TABLE = "    - table: attendance.member_months\n"
MISTAKES: dict[str, tuple[Change, str, str]] = {
    "an unknown attribute": (
        ("      unit: member_id", "      unnit: member_id"),
        "defs.yaml, line 8: there is no attribute `tables[0].unnit`.",
        "Did you mean unit",
    ),
    "an unknown attribute of the whole": (
        ("  schedule:", "  shedule:"),
        "defs.yaml, line 11: there is no attribute `shedule`.",
        "Did you mean schedule",
    ),
    "several kinds of partitions": (
        ("{keys: gyms}", '{keys: gyms, daily: "2026-01-01"}'),
        "defs.yaml, line 4: `partitions`: give one of keys, static, hourly, daily, weekly, monthly; not keys and "
        "daily.",
        "",
    ),
    "a mode that is none": (
        ("      unit: member_id", "      unit: member_id\n      mode: upsertt"),
        "defs.yaml, line 9: `tables[0].mode`: Input should be 'upsert', 'insert_missing' or 'replace'.",
        "",
    ),
    "an unknown statement": (
        ("{every_visitor_has_a_month: visitors_without_month}", "{every_visitor_has_a_month: visitors}"),
        "defs.yaml, line 10: `checks.every_visitor_has_a_month` names the statement 'visitors', which does not "
        "exist.",
        "Did you mean visitors_without_month?",
    ),
    "no statement of the table's name": (
        ("-- name: member_months\n", "-- name: months\n"),
        "defs.yaml, line 7: `tables[0].query` names the statement 'member_months', which does not exist.",
        "months?",
    ),
    "an unknown bind": (
        ("any(:unit_keys::uuid[])", "any(:unit_key::uuid[])"),
        "queries.sql, line 7: statement 'member_months' binds :unit_key, which has no value here.",
        "Did you mean unit_keys",
    ),
    "a table twice": (
        (TABLE, TABLE + "      partition_column: gym_id\n" + TABLE),
        "defs.yaml, line 9: table attendance.member_months is listed twice.",
        "Remove one.",
    ),
    "no table name": (
        ("attendance.member_months", "attendance member_months"),
        "defs.yaml, line 7: `tables[0].table`: 'attendance member_months' is not a table name",
        "",
    ),
    "a day that is none": (
        ("{keys: gyms}", '{daily: "31.1.2026"}'),
        "defs.yaml, line 4: `partitions`: time data '31.1.2026' does not match format",
        "",
    ),
    "a time zone that is none": (
        ("{keys: gyms}", '{daily: "2026-01-31", timezone: Mars/Base}'),
        "defs.yaml, line 4: `partitions`: 'No time zone found with key Mars/Base'",
        "",
    ),
    "a URL in place of a variable": (
        ("attributes:\n", "attributes:\n  database: postgresql://me:secret@db/app\n"),
        "defs.yaml, line 4: `database` is not the name of an environment variable.",
        "such as REPORTING_URL, that holds the URL.",
    ),
    "a file without a named statement": (
        ("-- name: ", "-- nmae: "),
        "defs.yaml, line 4: `partitions.keys` names the statement 'gyms', which does not exist.",
        "There are none.",
    ),
    "no key at all": (
        ("{keys: gyms}", "{static: []}"),
        "defs.yaml, line 4: `partitions`: `static` has no key.",
        "",
    ),
    "a source that names no table": (
        ("{public.members: gym_id", "{a b c: gym_id"),
        "defs.yaml, line 5: `stale_when`: 'a b c' is not a table name",
        "",
    ),
    "a query that gives all partitions": (
        ("where m.gym_id = any(:partition_keys::uuid[]) and (", "where ("),
        "queries.sql, line 7: statement 'member_months' does not filter by partition, so it returns all rows.",
        "gym_id = any(:partition_keys)",
    ),
    "a query that gives all units": (
        ("(:unit_keys::uuid[] is null or m.id = any(:unit_keys::uuid[]))", "true"),
        "queries.sql, line 7: statement 'member_months' does not filter by unit, so it returns all units.",
        "member_id = any(:unit_keys)",
    ),
    "a frame that knows of no partition": (
        (
            "      unit: member_id\n      partition_column: gym_id",
            "      compute: builtins:id\n      reads: member_months",
        ),
        "defs.yaml, line 8: `compute` needs `partition_column`.",
        "",
    ),
    "a function that is none": (
        ("  schedule:", "  report: no.such:function\n  schedule:"),
        "defs.yaml, line 11: 'no.such:function' can't be loaded: No module named 'no'",
        "Write package.module:function.",
    ),
}
IN_THE_DATABASE: dict[str, tuple[Change, str, str]] = {
    "an unknown table": (
        (
            "- table: attendance.member_months\n",
            "- table: attendance.member_month\n      query: member_months\n",
        ),
        "defs.yaml, line 7: Table attendance.member_month does not exist in database",
        "Did you mean attendance.member_months",
    ),
    "an unknown partition column": (
        ("partition_column: gym_id", "partition_column: gymid"),
        "defs.yaml, line 9: Table attendance.member_months has no column 'gymid'; it has gym_id, ",
        "Did you mean gym_id?",
    ),
    "an unknown unit": (
        ("      unit: member_id", "      unit: memberId"),
        "defs.yaml, line 8: Table attendance.member_months has no column 'memberId'",
        "Did you mean member_id",
    ),
    "a column that the table has not": (
        ("count(*) as visits", "count(*) as vists"),
        "queries.sql, line 7: Table attendance.member_months has no column 'vists'",
        "Did you mean visits",
    ),
    "a key that is none": (
        ("      unit: member_id", "      unit: member_id\n      key: [gym_id, month]"),
        "defs.yaml, line 9: Table attendance.member_months has no unique constraint on (gym_id, month).",
        "(member_id, month)",
    ),
    "a query without the key": (
        (", date_trunc('month', a.activity_date)::date as month,", ","),
        "queries.sql, line 7: Table attendance.member_months has no unique constraint on columns that the asset "
        "returns (gym_id, member_id, visits)",
        "return the key's columns",
    ),
    "an unknown table in a query": (
        ("from public.members as m\n", "from public.member as m\n"),
        'queries.sql, line 7: The query of asset attendance/member_months is not valid: relation "public.member" does '
        "not exist",
        "",
    ),
    "units without a unit": (
        ("id as unit from", "id as member from"),
        "queries.sql, line 4: The query of asset attendance/member_months is not valid: column q.unit does not exist",
        "",
    ),
    "a check that is no SQL": (
        ("select a.member_id from", "select a.nobody from"),
        "queries.sql, line 17: the statement is not valid: column a.nobody does not exist",
        "",
    ),
    "a constant that is none": (
        ("count(*) as visits", "'many'::integer as visits"),
        "queries.sql, line 7: The query of asset attendance/member_months is not valid: invalid input syntax for type "
        'integer: "many"',
        "",
    ),
    "a constant of a check that is none": (
        ("select a.member_id from", "select 'soon'::date from"),
        'queries.sql, line 17: the statement is not valid: invalid input syntax for type date: "soon"',
        "",
    ),
    "a frame's statement that is no SQL": (
        (
            "      unit: member_id\n",
            "      compute: builtins:id\n      reads: visitors\n",
        ),
        "queries.sql, line 20: The query of asset attendance/member_months is not valid: column m.nobody",
        "",
    ),
    "polling of a view": (
        ("stale_when: {public.members: gym_id", "stale_by: polling\n  stale_when: {public.seen: gym_id"),
        "defs.yaml, line 6: stale_when public.seen: new rows of a view or a foreign table can't be detected.",
        "Declare a statement with `due` instead.",
    ),
    "a query without the partition": (
        ("select m.gym_id, m.id as member_id,", "select m.id as member_id,"),
        "queries.sql, line 7: The source of attendance.member_months does not return 'gym_id', which identifies its "
        "rows; it returns member_id, month, visits.",
        "",
    ),
    "several statements in place of one": (
        ("from public.gyms order by id;", "from public.gyms; delete from public.gyms;"),
        "queries.sql, line 1: the statement is not valid: cannot insert multiple commands into a prepared statement.",
        "",
    ),
    "a status without the partition": (
        ("  schedule:", "  status: gyms\n  schedule:"),
        "queries.sql, line 1: the statement is not valid: column q.partition does not exist.",
        "",
    ),
    "a trigger that can't be made": (
        ("public.members: gym_id", "public.members: gymid"),
        "defs.yaml, line 5: stale_when public.members: column c.gymid does not exist",
        "'gymid' must be a column of it",
    ),
    "a trigger on no table": (
        ("public.members: gym_id", "public.membrs: gym_id"),
        'defs.yaml, line 5: stale_when public.membrs: relation "public.membrs" does not exist',
        "",
    ),
}


@pytest.mark.parametrize(("change", "message", "hint"), MISTAKES.values(), ids=MISTAKES)
def test_a_mistake_is_reported_with_its_file_and_line_without_a_database(
    tmp_path: Path, change: Change, message: str, hint: str
) -> None:
    folder = copied(tmp_path, "member_months", change)
    with pytest.raises(UserError) as raised:
        declared(folder)
    assert f"{folder}/{message}" in raised.value.message
    assert hint in raised.value.hint


@pytest.mark.parametrize(("change", "message", "hint"), IN_THE_DATABASE.values(), ids=IN_THE_DATABASE)
def test_a_mistake_that_the_database_finds_is_reported_with_its_file_and_line(
    conn: psycopg.Connection, tmp_path: Path, change: Change, message: str, hint: str
) -> None:
    conn.execute(GYM + MONTHS)
    conn.execute("create view public.seen as select * from public.members")
    conn.autocommit = False
    folder = copied(tmp_path, "member_months", change)
    with (folder / "queries.sql").open("a") as queries:
        queries.write(
            "-- name: visitors\nselect m.nobody from public.members as m where gym_id = any(:partition_keys)"
        )
    with pytest.raises(UserError) as raised:
        inspect(declared(folder), conn)
    assert f"{folder}/{message}" in raised.value.message
    assert hint in raised.value.hint


@pytest.mark.parametrize(
    "example", [path.name for path in EXAMPLES.iterdir() if path.name.startswith("member_")]
)
def test_a_declaration_without_a_mistake_gets_no_message(conn: psycopg.Connection, example: str) -> None:
    conn.execute(GYM + MONTHS)
    conn.autocommit = False
    inspect(declared(EXAMPLES / example), conn)


def test_a_run_and_a_plan_validate_the_declaration_first(
    conn: psycopg.Connection, database_url: str, tmp_path: Path
) -> None:
    conn.execute(GYM + MONTHS)
    change, message, _ = IN_THE_DATABASE["a check that is no SQL"]
    backfill = declared(copied(tmp_path, "member_months", change))
    with adopter(backfill, database_url) as a:
        assert message in failure_description(a.refresh("all", expect=False))
    with pytest.raises(UserError, match=message):
        plan_backfill(backfill, PostgresResource(url=database_url).connect, Which.all)
    assert query(conn, "select count(*) from attendance.member_months") == [0]
