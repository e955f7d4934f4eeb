"""Migrations on real databases: applied once, by one process at a time, completely or not at all."""

import subprocess
import sys
import threading
import time
from pathlib import Path

import psycopg
import pytest

from dagster_backfills.postgres import migrations
from dagster_backfills.postgres.migrations import (
    MigrationError,
    apply_migrations,
    migration_state,
    require_migrations,
)

APPLY = """
import sys
from pathlib import Path
from dagster_backfills.postgres.migrations import apply_migrations
print(*apply_migrations(sys.argv[1], Path(sys.argv[2])))
"""


@pytest.fixture
def url(make_database) -> str:
    return make_database(migrated=False)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    folder = tmp_path / "migrations"
    folder.mkdir()
    (folder / "0001_first.sql").write_text("create table first (id int); insert into first values (1);")
    return folder


def tables(url: str) -> set[str]:
    with psycopg.connect(url) as conn:
        rows = conn.execute("select tablename from pg_tables where schemaname !~ '^(pg_|information_)'")
        return {row[0] for row in rows}


def apply_in_a_process(url: str, folder: Path) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", APPLY, url, str(folder)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def wait_for_statement(url: str, pattern: str) -> None:
    query = "select count(*) from pg_stat_activity where query like %s and pid <> pg_backend_pid()"
    with psycopg.connect(url, autocommit=True) as conn:
        while conn.execute(query, [pattern]).fetchone() == (0,):
            time.sleep(0.01)


def test_migrations_apply_once_and_then_find_nothing_to_do(url):
    assert migration_state(url).applied == []
    applied = apply_migrations(url)
    assert applied[0] == "0001_backfill"
    assert apply_migrations(url) == []
    assert migration_state(url).pending == []
    assert migration_state(url).applied == applied


def test_querying_the_state_of_an_unmigrated_database_leaves_it_empty(url):
    assert migration_state(url).pending[0] == "0001_backfill"
    assert tables(url) == set()


def test_an_up_to_date_database_is_only_read(url, folder):
    apply_migrations(url, folder)
    with psycopg.connect(url, autocommit=True) as conn:
        conn.execute("create role only_reads_it login")
        try:
            conn.execute("grant usage on schema backfill to only_reads_it")
            conn.execute("grant select on backfill.schema_migrations to only_reads_it")
            assert apply_migrations(url.replace("postgres@", "only_reads_it@"), folder) == []
        finally:
            conn.execute("drop owned by only_reads_it; drop role only_reads_it")


def test_a_pending_migration_is_named_with_the_command_that_applies_it(url):
    with pytest.raises(MigrationError) as raised:
        require_migrations(url)
    assert "lacks migration 0001_backfill" in str(raised.value)
    assert "backfills migrate" in raised.value.hint
    apply_migrations(url)
    require_migrations(url)


@pytest.mark.programs
def test_two_concurrent_processes_apply_everything_once(url, folder):
    (folder / "0002_slow.sql").write_text("select pg_sleep(1); create table second (id int);")
    both = [apply_in_a_process(url, folder) for _ in range(2)]
    outputs = sorted(process.communicate()[0].strip() for process in both)
    assert outputs == ["", "0001_first 0002_slow"]
    assert [process.returncode for process in both] == [0, 0]
    with psycopg.connect(url) as conn:
        assert conn.execute("select count(*) from first").fetchone() == (1,)


def test_a_failed_migration_leaves_nothing_and_the_error_names_file_and_cause(url, folder):
    (folder / "0002_bad.sql").write_text("create table half (id int); insert into first values ('x');")
    (folder / "0003_later.sql").write_text("create table later (id int);")
    with pytest.raises(MigrationError) as raised:
        apply_migrations(url, folder)
    assert "0002_bad.sql failed: invalid input syntax for type integer" in raised.value.message
    assert migration_state(url, folder).applied == ["0001_first"]
    assert not tables(url) & {"half", "later"}
    (folder / "0002_bad.sql").write_text("create table half (id int);")
    assert apply_migrations(url, folder) == ["0002_bad", "0003_later"]


@pytest.mark.programs
def test_a_killed_migration_is_applied_completely_by_the_next_process(url, folder):
    (folder / "0002_killed.sql").write_text("create table second (id int); select pg_sleep(600);")
    process = apply_in_a_process(url, folder)
    wait_for_statement(url, "%pg_sleep%")
    process.kill()
    process.communicate()
    (folder / "0002_killed.sql").write_text("create table second (id int);")
    assert apply_migrations(url, folder) == ["0002_killed"]
    assert tables(url) >= {"first", "second"}


@pytest.mark.programs
def test_a_migration_killed_before_it_is_recorded_is_rolled_back_and_applied_again(url, folder):
    apply_migrations(url, folder)
    (folder / "0002_killed.sql").write_text("create table second (id int);")
    with psycopg.connect(url) as holder:
        holder.execute("lock table backfill.schema_migrations in share mode")
        process = apply_in_a_process(url, folder)
        wait_for_statement(url, "insert into backfill.schema_migrations%")
        process.kill()
        process.communicate()
    assert apply_migrations(url, folder) == ["0002_killed"]
    assert tables(url) >= {"first", "second"}


def test_a_migration_that_waits_for_a_table_does_not_block_others_and_is_retried(url, folder, monkeypatch):
    monkeypatch.setattr(migrations, "_LOCK_TIMEOUT", "200ms")
    apply_migrations(url, folder)
    (folder / "0002_alter.sql").write_text("alter table first add column name text;")
    with psycopg.connect(url) as holder, psycopg.connect(url, autocommit=True) as reader:
        holder.execute("select * from first")
        applying = threading.Thread(target=apply_migrations, args=(url, folder))
        applying.start()
        wait_for_statement(url, "alter table first%")
        # Behind a migration that waits forever, this would wait, too.
        assert reader.execute("select count(*) from first").fetchone() == (1,)
        holder.rollback()
        applying.join()
    assert migration_state(url, folder).pending == []


def test_a_lock_that_is_never_released_ends_in_an_error(url, folder, monkeypatch):
    monkeypatch.setattr(migrations, "_LOCK_TIMEOUT", "50ms")
    monkeypatch.setattr(migrations, "_LOCK_ATTEMPTS", 2)
    apply_migrations(url, folder)
    (folder / "0002_alter.sql").write_text("alter table first add column name text;")
    with psycopg.connect(url) as holder:
        holder.execute("select * from first")
        with pytest.raises(MigrationError, match=r"0002_alter\.sql failed: canceling statement due to lock"):
            apply_migrations(url, folder)
    assert apply_migrations(url, folder) == ["0002_alter"]


def test_while_retrying_it_logs_the_sessions_that_hold_the_locks(url, folder, monkeypatch):
    monkeypatch.setattr(migrations, "_LOCK_TIMEOUT", "2s")
    monkeypatch.setattr(migrations, "_LOCK_ATTEMPTS", 2)
    apply_migrations(url, folder)
    (folder / "0002_alter.sql").write_text("alter table first add column name text;")
    lines: list[str] = []
    with psycopg.connect(url, application_name="nightly report") as holder:
        holder.execute("select * from first")
        with pytest.raises(MigrationError) as raised:
            apply_migrations(url, folder, lines.append)
        holders = (
            f"locked by process {holder.info.backend_pid} (postgres, nightly report, idle in transaction"
        )
    [line] = lines
    assert line.startswith("0002_alter.sql could not get its locks and will be retried.") and holders in line
    assert holders in raised.value.hint


@pytest.mark.parametrize("name", ["jobs", "training", "backfill"])
def test_a_foreign_schema_of_the_same_name_is_refused_before_anything_is_changed(url, name):
    with psycopg.connect(url, autocommit=True) as conn:
        conn.execute(
            f"create schema {name}; create table {name}.orders (id int); create view {name}.v as select 1"
        )
        before = conn.execute("select count(*) from pg_class").fetchone()
        with pytest.raises(MigrationError) as raised:
            apply_migrations(url)
        assert f"{name} (table {name}.orders and 1 more). Nothing was changed." in raised.value.message
        assert conn.execute("select count(*) from pg_class").fetchone() == before
        assert conn.execute("select to_regnamespace('scoring')").fetchone() == (None,)


def test_empty_schemas_that_an_administrator_has_created_are_used(url, folder):
    (folder / "jobs").mkdir()
    (folder / "jobs" / "0002_jobs.sql").write_text("create table jobs.own (id int);")
    with psycopg.connect(url, autocommit=True) as conn:
        database = conn.info.dbname
        conn.execute("create role may_not_create login; create schema backfill authorization may_not_create")
        conn.execute(
            "create schema jobs authorization may_not_create; grant create on schema public to may_not_create"
        )
        try:
            conn.execute(f"revoke create on database {database} from public")
            assert apply_migrations(url.replace("postgres@", "may_not_create@"), folder) == [
                "0001_first",
                "0002_jobs",
            ]
        finally:
            conn.execute("drop owned by may_not_create; drop role may_not_create")


def test_a_migration_that_was_changed_after_it_was_applied_is_refused(url, folder):
    apply_migrations(url, folder)
    (folder / "0001_first.sql").write_text("create table another (id int);")
    (folder / "0002_next.sql").write_text("create table second (id int);")
    assert migration_state(url, folder).changed == ["0001_first"]
    with pytest.raises(MigrationError, match="0001_first has changed since the migration was applied"):
        apply_migrations(url, folder)
    assert not tables(url) & {"another", "second"}
