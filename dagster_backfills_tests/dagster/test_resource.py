"""A run's connection: its URL, its transactions, its recovery."""

import dagster as dg
import psycopg
import pytest
from psycopg.rows import dict_row
from sqlalchemy import text

from dagster_backfills.dagster.resource import PostgresResource


def connections(url: str) -> int:
    query = "select count(*) from pg_stat_activity where datname = current_database()"
    with psycopg.connect(url) as conn:
        row = conn.execute(f"{query} and application_name = 'dagster_backfills'").fetchone()
        return row[0] if row else 0


def test_an_empty_url_means_the_environments(database_url, monkeypatch):
    monkeypatch.setenv("DATABASE_URL", database_url)
    with PostgresResource().connect() as conn:
        assert conn.info.dbname == psycopg.conninfo.conninfo_to_dict(database_url)["dbname"]


def test_uncommitted_work_is_rolled_back_and_the_next_user_starts_clean(database_url):
    postgres = PostgresResource(url=database_url)
    with postgres.connect() as conn:
        conn.execute("create table t (id int)")
        conn.commit()
        conn.execute("insert into t values (1)")
    with pytest.raises(ZeroDivisionError), postgres.connect() as conn:
        conn.execute("insert into t values (2)")
        raise ZeroDivisionError
    with postgres.connect() as conn:
        assert conn.info.transaction_status == psycopg.pq.TransactionStatus.IDLE
        assert conn.execute("select count(*) from t").fetchone() == (0,)


def test_session_settings_do_not_leak_to_the_next_connection(database_url):
    postgres = PostgresResource(url=database_url)
    with postgres.connect() as conn:
        conn.autocommit = True
        conn.isolation_level, conn.read_only = psycopg.IsolationLevel.SERIALIZABLE, True
        conn.row_factory = dict_row
        conn.execute("set datestyle = 'SQL, DMY'; set statement_timeout = '1h'; listen something")
        conn.execute("select pg_advisory_lock(7)")
        conn.read_only = False
        conn.execute("create temporary table mine (id int)")
    with postgres.connect() as conn:
        assert (conn.autocommit, conn.isolation_level, conn.read_only) == (False, None, None)
        assert conn.execute("select 1").fetchone() == (1,)
        found = conn.execute(
            "select current_setting('datestyle'), current_setting('statement_timeout'), to_regclass('pg_temp.mine'),"
            " (select count(*) from pg_locks as l where l.locktype = 'advisory' and l.database ="
            "  (select d.oid from pg_database as d where d.datname = current_database())),"
            " (select count(*) from pg_listening_channels())"
        )
        assert found.fetchone() == ("ISO, MDY", "0", None, 0, 0)
        assert conn.info.transaction_status == psycopg.pq.TransactionStatus.INTRANS


def test_a_connection_closed_by_the_server_does_not_affect_the_next(database_url):
    postgres = PostgresResource(url=database_url)
    with pytest.raises(psycopg.OperationalError), postgres.connect() as conn:
        with psycopg.connect(database_url, autocommit=True) as other:
            other.execute("select pg_terminate_backend(%s, 5000)", [conn.info.backend_pid])
        conn.execute("select 1")
    with postgres.connect() as conn:
        assert conn.execute("select 1").fetchone() == (1,)


def test_connections_are_closed_at_the_end_of_their_block(database_url):
    postgres = PostgresResource(url=database_url)

    @dg.asset
    def two_reads(postgres: PostgresResource) -> int:
        for _ in range(3):
            with postgres.connect() as conn:
                conn.execute("select 1")
        with postgres.engine.connect() as conn:
            conn.execute(text("select 1"))
            return connections(database_url)

    result = dg.materialize([two_reads], resources={"postgres": postgres})
    assert result.output_for_node("two_reads") == 1
    assert connections(database_url) == 0
