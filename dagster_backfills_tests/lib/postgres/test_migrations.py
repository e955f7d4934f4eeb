from dagster_backfills.lib.postgres.migrations import apply_migrations, migration_state


def test_migrations_apply_once_and_then_find_nothing_to_do(make_database):
    url = make_database(migrated=False)
    assert migration_state(url).applied == []
    applied = apply_migrations(url)
    assert applied[0] == "0001_backfill_engine"
    assert apply_migrations(url) == []
    assert migration_state(url).pending == []
