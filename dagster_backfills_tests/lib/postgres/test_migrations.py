import psycopg

from dagster_backfills.lib.postgres.migrations import apply_migrations, migration_state


def test_migrations_apply_once_and_then_find_nothing_to_do(make_database):
    url = make_database(migrated=False)
    assert migration_state(url).applied == []
    applied = apply_migrations(url)
    assert applied[0] == "0001_backfill_engine"
    assert apply_migrations(url) == []
    assert migration_state(url).pending == []


def test_a_row_version_is_older_unless_it_was_written_after_the_snapshot(database_url):
    with psycopg.connect(database_url) as one, psycopg.connect(database_url) as two:
        one.execute("create table t (id int primary key, v int)")
        one.execute("insert into t values (1, 0), (2, 0)")
        assert one.execute("select bool_and(backfill.is_older(xmin)) from t").fetchone() == (True,)
        one.commit()
        one.execute("set transaction isolation level repeatable read")
        assert one.execute("select bool_and(backfill.is_older(xmin)) from t").fetchone() == (True,)
        two.execute("update t set v = 1 where id = 1")
        two.commit()
        one.commit()
        assert one.execute("select bool_and(backfill.is_older(xmin)) from t").fetchone() == (True,)
