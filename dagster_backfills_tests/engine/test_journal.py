"""The journal has exact previous versions of changed rows, for each mode and type, and no entries of unchanged rows."""

import uuid

import pytest

from dagster_backfills.engine import journal
from dagster_backfills.engine.model import Query, Target, Write
from dagster_backfills.engine.run_identity import RunIdentity
from dagster_backfills.engine.runner import Runner
from dagster_backfills.engine.settings import EngineSettings
from dagster_backfills.engine.table.address import ByValue
from dagster_backfills_tests.engine.running import UNITS, by_part, computed, fill, opened, run, totals

# A value of each type that text could spoil, and what comes after it.
TYPES = {
    "numeric": ("12345678901234567890.1234567890000", "1"),
    "numeric(10, 3)": ("0.100", "'NaN'"),
    "double precision": ("0.1::float8 + 0.2::float8", "'-Infinity'"),
    "real": ("1.1::real / 3", "'NaN'"),
    "timestamptz": ("'2024-02-29 23:59:59.999999+05:45'", "'infinity'"),
    "timestamp": ("'0044-03-15 12:00:00.000001 BC'", "'-infinity'"),
    "date": ("'5874897-12-31'", "null"),
    "interval": ("'-1 year -2 days +03:04:05.000006'", "'1 mon'"),
    "json": ("""'{"b":1,  "a":1.0, "b":2}'""", "'null'"),
    "jsonb": ("""'{"n": 1.10000000000000000000001}'""", "'[]'"),
    "bytea": (r"'\x00ff5c22'", "''"),
    "text": ("""E'a "quoted", (nested) \\\\ back\\nline %s'""", "''"),
    "text[]": ("""array['a,b', null, '', '{}', E'\\\\"']""", "'{}'"),
    "numeric[]": ("array[[1.10, null], [3, 4]]", "null"),
    "point": ("'(0.1,1e-300)'", "'(0,0)'"),
    "tsrange": ("'[2024-01-01, 2024-01-02)'", "'empty'"),
    "int4multirange": ("'{[1,3), [5,9)}'", "'{}'"),
    "uuid": ("gen_random_uuid()", "null"),
    "bit varying": ("B'10110'", "B''"),
    "tsvector": ("to_tsvector('simple', 'it''s a test')", "''"),
    "inet": ("'10.0.0.1/8'", "'::1'"),
    "t.pair": ("row(1.50, 'x, \"y\"')", "row(null, '')"),
    "t.mood": ("'so so'", "'fine'"),
    "t.percent": ("99.50", "1"),
}


def entries(conn):
    return conn.execute(
        "select b.asset, j.partition, j.key, j.before, j.after is not null from backfill.journal_entries as j"
        " inner join backfill.batches as b using (journal_id) order by b.committed_at, b.asset desc, j.partition, j.id"
    ).fetchall()


def test_inserted_rows_journal_a_key_and_changed_rows_their_previous_version(database_url, conn):
    keys = fill(conn, parts=2, units=2)
    conn.execute("insert into t.units values ('p001', 'p001-u0001', 7), ('p002', 'gone', 9)")
    run(database_url, [by_part, totals], keys)
    assert entries(conn) == [
        ("t/units", "p001", ["p001-u0001"], "(p001,p001-u0001,7)", True),
        ("t/units", "p001", ["p001-u0002"], None, True),
        ("t/units", "p002", ["gone"], "(p002,gone,9)", False),
        ("t/units", "p002", ["p002-u0001"], None, True),
        ("t/units", "p002", ["p002-u0002"], None, True),
        ("t/parts", "p001", ["p001"], None, True),
        ("t/parts", "p002", ["p002"], None, True),
    ]
    conn.execute("truncate backfill.journal")
    run(database_url, [by_part, totals], keys)
    assert entries(conn) == []


@pytest.mark.parametrize("mode", ["insert_missing", "replace"])
def test_every_mode_journals(database_url, conn, mode):
    keys = fill(conn, parts=1, units=2)
    conn.execute("insert into t.units values ('p001', 'p001-u0001', 7)")
    run(database_url, [Write(Target("t/units", "part", mode=mode), Query(UNITS))], keys)
    of_first = [(before, left) for _, _, key, before, left in entries(conn) if key == ["p001-u0001"]]
    replaced = [("(p001,p001-u0001,7)", False), (None, True)]
    assert of_first == (replaced if mode == "replace" else [])
    assert [entry[3:] for entry in entries(conn) if entry[2] == ["p001-u0002"]] == [(None, True)]


def test_rows_copied_into_an_empty_slice_are_journaled(database_url, conn):
    keys = fill(conn, parts=1, units=5)
    run(database_url, [computed(lambda *_: None)], keys, batch_units=2)
    assert sorted(entry[2][0] for entry in entries(conn)) == [f"p001-u000{n}" for n in range(1, 6)]
    assert conn.execute("select count(distinct journal_id) from backfill.journal").fetchone() == (3,)


def test_a_table_without_journal_or_key_has_no_entries(database_url, conn):
    keys = fill(conn, parts=1, units=2)
    run(database_url, [Write(Target("t/units", "part", journal=False), Query(UNITS))], keys)
    conn.execute("create table t.keyless (part text, unit text, v int)")
    run(database_url, [Write(Target("t/keyless", "part", mode="replace"), Query(UNITS))], keys)
    assert entries(conn) == []
    assert conn.execute("select count(journal_id), count(journal) from backfill.batches").fetchone() == (0, 0)
    assert conn.execute("select count(*) from t.keyless").fetchone() == (2,)


def test_entries_have_the_partition_key_and_not_the_columns_spelling_of_it(database_url, conn):
    part = str(uuid.uuid4())
    conn.execute("create schema t; create table t.rows (part uuid, id int primary key)")
    write = Write(
        Target("t/rows", "part"),
        Query("select k::uuid as part, 1 as id from unnest(%(partition_keys)s::text[]) as k"),
        address=ByValue("part", "uuid"),
    )
    runner = Runner(lambda: opened(database_url), RunIdentity("one"), EngineSettings())
    assert list(runner.run([write], [part.upper()])) == [[part.upper()]]
    assert [entry[1] for entry in entries(conn)] == [part.upper()]


def test_previous_versions_are_exact_for_every_type(database_url, conn):
    conn.execute(
        "create schema t; create type t.pair as (n numeric, s text);"
        " create type t.mood as enum ('so so', 'fine'); create domain t.percent as numeric check (value <= 100)"
    )
    names = [f"c{n}" for n in range(len(TYPES))]
    columns = ", ".join(f"{name} {kind}" for name, kind in zip(names, TYPES, strict=True))
    olds = ", ".join(f"({old})::{kind}" for kind, (old, _) in TYPES.items())
    news = ", ".join(
        f"({new})::{kind} as {name}" for name, (kind, (_, new)) in zip(names, TYPES.items(), strict=True)
    )
    conn.execute(f"create table t.rows (part text, id int primary key, {columns})")
    conn.execute(f"insert into t.rows select 'a', 1, {olds}")
    conn.execute("create table t.kept as table t.rows")
    # Sessions of a role that is set to lose digits, and to write times in another way.
    for setting in ("extra_float_digits = -10", "datestyle = 'SQL, DMY'", "intervalstyle = 'sql_standard'",
                    "bytea_output = 'escape'"):  # fmt: skip
        conn.execute(f"alter database {conn.info.dbname} set {setting}")
    query = Query(f"select k as part, 1 as id, {news} from unnest(%(partition_keys)s::text[]) as k")  # noqa: S608
    assert run(database_url, [Write(Target("t/rows", "part"), query)], ["a"]).of("t/rows", "a").updated == 1
    same = "select (j.before::t.rows)::text = (k.*)::text from backfill.journal_entries as j, t.kept as k"
    assert conn.execute(same).fetchall() == [(True,)]


def test_old_entries_are_pruned_in_portions_and_newer_ones_stay(database_url, conn):
    keys = fill(conn, parts=4, units=5)
    run(database_url, [by_part], keys[:3])
    conn.execute("update backfill.batches set committed_at = now() - interval '31 days'")
    run(database_url, [by_part], keys[3:])
    with opened(database_url) as other:
        assert list(journal.prune(other, limit=2)) == [10, 5]
        assert list(journal.prune(other)) == []
    assert {entry[1] for entry in entries(conn)} == {"p004"}
    assert conn.execute("select count(journal) from backfill.batches").fetchone() == (1,)


def test_a_partitions_entries_share_journal_rows_up_to_a_size_limit(database_url, conn):
    keys = fill(conn, parts=1, units=12)
    conn.execute("alter table t.units add large text")
    conn.execute(
        "insert into t.units select 'p001', 'p001-u' || lpad(n::text, 4, '0'), -1, repeat('x', 1000000)"
        " from generate_series(1, 12) as n"
    )
    run(database_url, [by_part], keys)
    lengths = conn.execute("select cardinality(keys) from backfill.journal order by id").fetchall()
    assert sum(length for (length,) in lengths) == 12
    assert max(lengths) <= (5,)
    assert len(entries(conn)) == len({entry[2][0] for entry in entries(conn)}) == 12
