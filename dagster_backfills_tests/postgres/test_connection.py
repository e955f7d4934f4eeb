"""Every connection has the same session settings, whatever the database is configured with."""

import psycopg
import pytest
from psycopg import sql
from psycopg.conninfo import conninfo_to_dict

from dagster_backfills.dagster.resource import PostgresResource
from dagster_backfills.instance.storage import BatchedPostgresStorage
from dagster_backfills.postgres.connection import PINNED, connect

HOSTILE = {
    "client_encoding": "LATIN1",
    "datestyle": "SQL, DMY",
    "intervalstyle": "iso_8601",
    "timezone": "Asia/Kolkata",
    "bytea_output": "escape",
    "extra_float_digits": "-3",
    "standard_conforming_strings": "off",
    "array_nulls": "off",
    "transform_null_equals": "on",
    "quote_all_identifiers": "on",
    "xmloption": "document",
    "default_transaction_isolation": "serializable",
    "idle_in_transaction_session_timeout": "1s",
    "row_security": "on",
}


def set_for_database(url: str, settings: dict[str, str]) -> None:
    database = sql.Identifier(str(conninfo_to_dict(url)["dbname"]))
    with psycopg.connect(url, autocommit=True) as conn:
        for name, value in settings.items():
            statement = sql.SQL("alter database {} set {} = {}")
            conn.execute(statement.format(database, sql.Identifier(name), sql.Literal(value)))


def shown(conn) -> dict[str, str]:
    names = list(PINNED)
    rows = conn.execute("select current_setting(n) from unnest(%s::text[]) as n", [names]).fetchall()
    return dict(zip(names, (row[0] for row in rows), strict=True))


def test_every_setting_that_results_rely_on_is_pinned_on_every_way_to_connect(database_url):
    assert set(HOSTILE) == set(PINNED) and not set(HOSTILE.items()) & set(PINNED.items())
    set_for_database(database_url, HOSTILE)
    with connect(database_url) as conn:
        assert shown(conn) == dict(PINNED)
        assert (
            conn.execute("select '{NULL}'::text[], date '2026-05-07', interval '1 hour'").fetchone()
            is not None
        )
    with PostgresResource(url=database_url).engine.connect() as conn:
        assert shown(conn.connection.driver_connection) == dict(PINNED)


def test_dagsters_own_storage_is_pinned_too_and_its_tables_are_in_the_urls_schema(database_url):
    set_for_database(database_url, {**HOSTILE, "search_path": "nowhere"})
    with psycopg.connect(database_url, autocommit=True) as conn:
        conn.execute("create schema its_own")
    separator = "&" if "?" in database_url else "?"
    url = f"{database_url}{separator}options=-csearch_path%3Dits_own%20-cwork_mem%3D5MB"
    storage = BatchedPostgresStorage(url)
    with storage.event_log_storage.index_connection() as conn:
        raw = conn.connection.driver_connection.cursor()
        for name, value in {**PINNED, "search_path": "its_own", "work_mem": "5MB"}.items():
            raw.execute(f"show {name}")
            assert (name, *raw.fetchone()) == (name, value)
    with psycopg.connect(database_url) as conn:
        where = conn.execute(
            "select distinct schemaname from pg_tables where tablename in ('runs', 'event_logs', 'jobs')"
        )
        assert sorted(row[0] for row in where) == ["backfill", "its_own"]


def test_options_of_the_caller_and_of_the_url_are_kept(database_url):
    separator = "&" if "?" in database_url else "?"
    url = f"{database_url}{separator}application_name=theirs"
    with connect(url) as conn, connect(url, autocommit=True, application_name="mine") as other:
        query = "select current_setting('application_name')"
        assert (conn.execute(query).fetchone(), conn.autocommit) == (("theirs",), False)
        assert (other.execute(query).fetchone(), other.autocommit) == (("mine",), True)


@pytest.mark.parametrize("path", ["", "decoy", "decoy, pg_catalog"])
def test_names_are_qualified_whatever_the_search_path_is(make_database, path):
    from dagster_backfills.postgres.migrations import apply_migrations, require_migrations

    url = make_database(migrated=False)
    with psycopg.connect(url, autocommit=True) as conn:
        conn.execute(
            "create schema decoy; create table decoy.schema_migrations (migration_id text, digest text)"
        )
    set_for_database(url, {"search_path": path})
    applied = apply_migrations(url)
    set_for_database(url, {"search_path": "public"})
    require_migrations(url)
    assert apply_migrations(url) == [] and len(applied) > 1
    with psycopg.connect(url) as conn:
        assert conn.execute("select count(*) from decoy.schema_migrations").fetchone() == (0,)
        assert conn.execute("select count(*) from pg_tables where schemaname = 'public'").fetchone() == (0,)
