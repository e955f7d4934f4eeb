"""A batch is written without a check of each row's users: what keeps them there, and when it is not done so."""

from collections import Counter

import psycopg
import pytest
from psycopg import sql

from dagster_backfills.defs.kintell import importer, writer
from dagster_backfills.defs.kintell.account import load_job
from dagster_backfills.defs.kintell.importer import Options, run_import
from dagster_backfills.defs.kintell.register import register
from dagster_backfills_tests.defs.kintell.sample import add_users, row, write_csv

DANGLING = """
    select count(*)
    from kintell.kintell_sessions as s
    where not exists (select from kintell.users as u where u.id = s.participant_id)
        or not exists (select from kintell.users as u where u.id = s.volunteer_id)
"""

UPSERT = """
    insert into kintell.users (email, name, role) values ('Volunteer1@example.com', '', 'volunteer') on conflict
"""
MERGE = """
    merge into kintell.users as u using (values ('Volunteer1@example.com')) as v (email) on u.email = v.email
    when matched
"""
LEAVES = "insert into kintell.users (email, name, role) values ('leaves@example.com', '', 'participant')"
LEFT = "delete from kintell.users where email = 'leaves@example.com'"


@pytest.fixture
def start(conn, tmp_path):
    add_users(conn)

    def run(url, rows, name="a.csv"):
        job = register(conn, str(write_csv(tmp_path / name, rows)), [str(tmp_path)]).job
        return run_import(url, job, Options(batch_rows=25), [str(tmp_path)])

    return run


@pytest.fixture
def ways(monkeypatch):
    """Counts batches by whether their users were known to stay."""
    found = Counter()
    real = writer.keep_users

    def watched(conn, removals):
        stay = real(conn, removals)
        found[stay] += 1
        return stay

    monkeypatch.setattr(writer, "keep_users", watched)
    return found


def test_batches_are_written_without_a_check_of_each_row(start, database_url, ways):
    assert start(database_url, [row(i) for i in range(100)]).inserted_rows == 100
    assert ways == {True: 4}


@pytest.mark.parametrize("removal", ["delete from {}", "update {} set id = gen_random_uuid()"])
def test_a_user_who_goes_after_the_lookup_leaves_no_session_behind(
    start, conn, database_url, ways, monkeypatch, removal
):
    """The third batch is ready to be written, and then the user goes."""
    real, gone = importer.prepare_block, []
    statement = sql.SQL(removal).format(sql.Identifier("kintell", "users"))
    conn.execute(
        "insert into kintell.users (email, name, role) values ('leaves@example.com', '', 'participant')"
    )

    def prepare_and_remove(*given, **options):
        batch = real(*given, **options)
        if batch.first_row == 51:
            conn.execute(statement + sql.SQL(" where email = 'leaves@example.com'"))
            gone.append(batch)
        return batch

    monkeypatch.setattr(importer, "prepare_block", prepare_and_remove)
    leaving = [row(i, participant_email="leaves@example.com") if i == 60 else row(i) for i in range(100)]
    job = start(database_url, leaving)
    assert gone and ways[False] > 0
    assert (job.status, job.inserted_rows, job.failed_rows) == ("completed", 99, 1)
    assert conn.execute(DANGLING).fetchone() == (0,)
    number, message = conn.execute(
        "select row_number, error_message from kintell.backfill_row_errors"
    ).fetchone()
    assert number == 61
    assert "foreign key" in message or "Participant not found" in message


def test_nobody_removes_a_user_while_a_batch_is_written(start, conn, database_url, tmp_path, monkeypatch):
    job = start(database_url, [row(0)])
    real, outcome = writer.copy_new, []

    def remove_meanwhile(connection, job, rows):
        inserted = real(connection, job, rows)
        with psycopg.connect(database_url, autocommit=True) as other:
            other.execute("set lock_timeout = '200ms'")
            with pytest.raises(psycopg.errors.LockNotAvailable):
                other.execute("delete from kintell.users where email = 'Participant1@example.com'")
            outcome.append(inserted)
        return inserted

    monkeypatch.setattr(writer, "copy_new", remove_meanwhile)
    job = start(database_url, [row(1)], "b.csv")
    assert (job.inserted_rows, outcome) == (1, [1])
    with pytest.raises(psycopg.errors.ForeignKeyViolation):
        conn.execute("delete from kintell.users where email = 'Participant1@example.com'")


def test_a_removal_under_way_is_not_waited_for(start, conn, database_url, ways):
    with psycopg.connect(database_url) as other:
        other.execute("delete from kintell.users where email = 'nobody@example.com'")
        assert start(database_url, [row(i) for i in range(50)]).inserted_rows == 50
    assert ways == {False: 2}


def test_a_removal_is_seen_whatever_isolation_the_database_has(start, conn, database_url, ways, monkeypatch):
    """Its transaction has begun, and then the user goes: a snapshot of its beginning would not show that."""
    conn.execute(LEAVES)
    conn.execute(
        sql.SQL("alter database {} set default_transaction_isolation = 'repeatable read'").format(
            sql.Identifier(conn.info.dbname)
        )
    )
    watched = writer.keep_users

    def remove_before(connection, removals):
        conn.execute(LEFT)
        return watched(connection, removals)

    monkeypatch.setattr(writer, "keep_users", remove_before)
    job = start(database_url, [row(0), row(1, participant_email="leaves@example.com")])
    assert (job.inserted_rows, job.failed_rows) == (1, 1)
    assert ways[False] > 0
    assert conn.execute(DANGLING).fetchone() == (0,)


def test_a_removal_while_the_notes_were_switched_off_is_seen(start, conn, database_url, ways, monkeypatch):
    conn.execute(LEAVES)
    watched = writer.keep_users

    def remove_unseen(connection, removals):
        with conn.transaction():
            conn.execute("alter table kintell.users disable trigger user")
            conn.execute(LEFT)
            conn.execute("alter table kintell.users enable always trigger note_user_removal")
            conn.execute('alter table kintell.users enable always trigger "A_note_user_id_change"')
        return watched(connection, removals)

    monkeypatch.setattr(writer, "keep_users", remove_unseen)
    job = start(database_url, [row(0), row(1, participant_email="leaves@example.com")])
    assert (job.inserted_rows, job.failed_rows) == (1, 1)
    assert conn.execute(DANGLING).fetchone() == (0,)


SUBSCRIBED = """
    create subscription kintell_users connection 'dbname=nowhere' publication p with (connect = false);
    set allow_system_table_mods = on;
    insert into pg_subscription_rel (srsubid, srrelid, srsubstate)
    select oid, 'kintell.users'::regclass, 'r' from pg_subscription where subname = 'kintell_users';
"""


@pytest.mark.parametrize(
    "what",
    {
        "child": "create table public.more () inherits (kintell.users)",
        "parent": "create table public.above (email text not null); alter table kintell.users inherit public.above",
        "subscription": SUBSCRIBED,
        "disabled": "alter table kintell.users disable trigger note_user_removal",
        "dropped": 'drop trigger "A_note_user_id_change" on kintell.users',
        "deferrable": "alter table kintell.kintell_sessions add unique (created_at, id) deferrable",
        "outbox": "alter table kintell.event_outbox add foreign key (job_id) references kintell.backfill_jobs",
        "other": "alter table kintell.kintell_sessions add foreign key (id) references kintell.users not valid",
    }.items(),
    ids=lambda item: item[0],
)
def test_where_a_removal_could_pass_unnoted_or_a_row_unseen_each_row_is_checked(
    start, conn, database_url, ways, what
):
    try:
        conn.execute(what[1])
        start(database_url, [row(i) for i in range(5)])
        assert ways[True] == 0
        assert ways[False] > 0
    finally:
        if what[0] == "subscription":
            conn.execute("alter subscription kintell_users set (slot_name = none)")
            conn.execute("drop subscription kintell_users")


def test_after_a_removal_the_users_are_read_again(start, conn, database_url, ways, monkeypatch):
    conn.execute(LEAVES)
    real = importer.prepare_block

    def prepare_and_remove(*given, **options):
        batch = real(*given, **options)
        if batch.first_row == 51:
            conn.execute(LEFT)
        return batch

    monkeypatch.setattr(importer, "REFRESH_AFTER", 25)
    monkeypatch.setattr(importer, "prepare_block", prepare_and_remove)
    assert start(database_url, [row(i) for i in range(250)]).inserted_rows == 250
    assert ways[False] >= 1
    assert ways[True] >= 6


def test_what_others_have_put_on_the_table_is_not_passed_by(start, conn, database_url, ways):
    conn.execute(
        """
        create table public.audit (session uuid);
        create function public.audit() returns trigger language plpgsql as
            $$ begin insert into public.audit values (new.id); return null; end $$;
        create trigger audit after insert on kintell.kintell_sessions
        for each row execute function public.audit();
        """
    )
    assert start(database_url, [row(i) for i in range(50)]).inserted_rows == 50
    assert ways == {False: 2}
    assert conn.execute("select count(*) from public.audit").fetchone() == (50,)


def test_a_foreign_key_of_someone_else_is_checked(start, conn, database_url, ways):
    conn.execute(
        """
        create table public.kinds (session_type text primary key);
        insert into public.kinds values ('mentorship');
        alter table kintell.kintell_sessions add foreign key (session_type) references public.kinds;
        """
    )
    job = start(database_url, [row(i) for i in range(30)])
    assert (job.inserted_rows, job.failed_rows) == (20, 10)
    assert ways[True] == 0


def test_a_worker_without_the_right_to_it_imports_row_by_row(start, conn, database_url, ways, server_url):
    conn.execute(
        """
        do $$ begin create role kintell_plain; exception when duplicate_object then null; end $$;
        grant usage on schema kintell, backfill to kintell_plain;
        grant all on all tables in schema kintell, backfill to kintell_plain;
        grant all on all sequences in schema kintell, backfill to kintell_plain;
        grant execute on all functions in schema kintell, backfill to kintell_plain;
        """
    )
    mark = "&" if "?" in database_url else "?"
    job = start(f"{database_url}{mark}options=-c%20role%3Dkintell_plain", [row(i) for i in range(50)])
    assert (job.status, job.inserted_rows) == ("completed", 50)
    assert ways == {False: 2}


def test_every_way_to_remove_a_user_is_noted_and_nothing_else(conn):
    add_users(conn)

    def noted(statement):
        before = conn.execute("select count(*) from kintell.user_removals").fetchone()[0]
        conn.execute(statement)
        return conn.execute("select count(*) from kintell.user_removals").fetchone()[0] - before

    assert noted("update kintell.users set name = 'New'") == 0
    assert noted("update kintell.users set id = gen_random_uuid() where email like 'V%'") > 0
    assert noted(f"{UPSERT} (lower(email)) do update set name = excluded.name") == 0
    assert noted(f"{UPSERT} (lower(email)) do update set id = gen_random_uuid()") > 0
    assert noted(f"{MERGE} then update set name = 'Newer'") == 0
    assert noted(f"{MERGE} then delete") == 1
    assert (
        noted("with gone as (delete from kintell.users where email = 'Volunteer2@example.com') select 1") == 1
    )
    assert (
        noted("set session_replication_role = replica; delete from kintell.users where email like 'V%'") == 1
    )
    assert noted("set session_replication_role = origin; truncate kintell.users cascade") == 1


def test_a_user_removed_by_a_cascade_is_noted(conn):
    conn.execute(
        """
        create table public.accounts (id uuid primary key);
        insert into public.accounts select gen_random_uuid();
        insert into kintell.users (id, email, name, role) select id, 'a@example.com', '', 'participant' from accounts;
        alter table kintell.users add foreign key (id) references public.accounts on delete cascade;
        delete from public.accounts;
        """
    )
    assert conn.execute("select count(*) from kintell.users").fetchone() == (0,)
    assert conn.execute("select count(*) from kintell.user_removals").fetchone() == (1,)


def test_an_id_that_a_trigger_changes_is_noted(conn):
    add_users(conn)
    conn.execute(
        """
        create function public.renew() returns trigger language plpgsql as
            $$ begin new.id := gen_random_uuid(); return new; end $$;
        create trigger renew before update on kintell.users for each row execute function public.renew();
        update kintell.users set name = 'New' where email = 'Volunteer1@example.com';
        """
    )
    assert conn.execute("select count(*) from kintell.user_removals").fetchone() == (1,)


@pytest.mark.parametrize(
    "statement",
    ["delete from {}", "update {} set noted_at = now()", "truncate {}"],
    ids=lambda s: s.split()[0],
)
def test_notes_of_removals_are_never_taken_away(conn, statement):
    with pytest.raises(psycopg.errors.RaiseException, match="only added to"):
        conn.execute(sql.SQL(statement).format(sql.Identifier("kintell", "user_removals")))


def test_who_may_remove_users_need_not_know_how_it_is_noted(conn):
    add_users(conn)
    conn.execute(
        """
        do $$ begin create role kintell_staff; exception when duplicate_object then null; end $$;
        grant usage on schema kintell to kintell_staff;
        grant select, delete on kintell.users to kintell_staff;
        set role kintell_staff;
        delete from kintell.users where email = 'Volunteer1@example.com';
        reset role;
        """
    )
    assert conn.execute("select count(*) from kintell.user_removals").fetchone() == (1,)


def test_the_days_of_an_import_are_stale_either_way(start, conn, database_url, ways):
    job = start(database_url, [row(1)])
    assert ways[True] == 1
    assert load_job(conn, job.id).inserted_rows == 1
    assert conn.execute(
        "select partition from backfill.stale where asset = 'kintell/daily_session_summary'"
    ).fetchall() == [("2024-02-02",)]
