"""Statements of `.sql` files run unchanged in psql, and with psycopg's binds."""

from pathlib import Path

import psycopg
import pytest

from dagster_backfills.errors import UserError
from dagster_backfills.postgres.statements import load_statements

_ODD = """-- Of the file as a whole.

-- name: odd
-- a comment with a :colon, 50 % and it's fine
select
    'x:y 100%' as quoted, "a:b" as named, $$ :no $$ as dollars, :value::text as bound,
    (array[10, 20, 30])[2:3] as slice, :value = any(:others::text[]) as found, 7 % 4 as rest
from (select 1 as "a:b") as t
where 'abc' like 'a%' and '{"k":1}'::jsonb @> '{"k":1}' /* :nor this */;

-- This one gives a value, and the comment above it is not the other's.
-- name: one$
select count(*) from generate_series(1, :n);

-- name: touched!
update things set a = a + 1 where a % 2 = 0;
"""


@pytest.fixture
def path(tmp_path: Path) -> Path:
    file = tmp_path / "queries.sql"
    file.write_text(_ODD)
    return file


def test_a_bind_is_one_only_where_psql_would_see_one(path: Path, conn: psycopg.Connection) -> None:
    row = conn.execute(load_statements(path)["odd"], {"value": "v", "others": ["v"]}).fetchone()
    assert row == ("x:y 100%", 1, " :no ", "v", [20, 30], True, 3)
    assert load_statements(path).by_name["odd"].binds == {"value", "others"}


def test_the_result_of_a_call_depends_on_the_suffix_of_the_name(path: Path, conn: psycopg.Connection) -> None:
    statements = load_statements(path)
    conn.execute("create table things (a integer); insert into things values (1), (2), (4)")
    assert statements.one(conn, n=3) == 3
    assert statements.touched(conn) == 2
    assert statements.odd(conn, value="v", others=[])[0][3:6] == ("v", [20, 30], False)


def test_a_statement_has_its_line_number(path: Path) -> None:
    places = [s.place for s in load_statements(path).by_name.values()]
    assert places == [f"{path}, line {line}" for line in (3, 12, 15)]


def test_a_duplicate_statement_name_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "twice.sql"
    file.write_text("-- name: a\nselect 1;\n-- name: a\nselect 2;\n")
    with pytest.raises(UserError, match=r"twice\.sql, line 3: there is already a statement 'a'"):
        load_statements(file).by_name  # noqa: B018
