import csv
import io
import time

import pytest

from dagster_backfills.domains.kintell.after.error_file import stream_errors, write_error_file
from dagster_backfills.domains.kintell.after.replay import replay
from dagster_backfills.domains.kintell.after.rollback import preview_rollback, roll_back
from dagster_backfills.domains.kintell.file.dialect import to_plain_csv
from dagster_backfills.domains.kintell.file.files import FileError, open_file
from dagster_backfills.domains.kintell.file.header import read_header
from dagster_backfills.domains.kintell.file.register import preflight, register
from dagster_backfills.domains.kintell.importing.claims import Claim
from dagster_backfills.domains.kintell.importing.importer import Options, run_import
from dagster_backfills.domains.kintell.importing.jobs import load_job, set_status
from dagster_backfills.domains.kintell.rows.dry_run import validate
from dagster_backfills.domains.kintell.statements import STATEMENTS
from dagster_backfills.errors import UserError
from dagster_backfills_tests.domains.kintell.sample import (
    COLUMNS,
    SESSIONS,
    add_users,
    mixed_rows,
    row,
    state,
    write_csv,
)

WHOLE = "select * from kintell.kintell_sessions order by id"


@pytest.fixture
def start(conn, database_url, tmp_path):
    add_users(conn)

    def run(rows, name="sessions.csv", on_duplicate="skip", columns=COLUMNS, **options):
        path = write_csv(tmp_path / name, rows, columns)
        job = register(conn, str(path), [str(tmp_path)], on_duplicate=on_duplicate).job
        return run_import(database_url, job, Options(**{"batch_rows": 25, **options}), [str(tmp_path)])

    return run


def test_the_corrected_error_file_imports_its_rows(start, conn, tmp_path):
    job = start([{**r, "notes": "kept, as is"} for r in mixed_rows(100)], columns=[*COLUMNS, "notes"])
    path = tmp_path / "errors" / "rejected.csv"
    assert write_error_file(conn, job.id, str(path)) == job.failed_rows == 10
    rows = list(csv.DictReader(io.StringIO(path.read_text())))
    assert list(rows[0]) == [*COLUMNS, "notes", "_error_row", "_error_message", "_error_raw"]
    assert (rows[0]["_error_row"], rows[0]["_error_message"]) == ("10", "Missing session_id")
    assert rows[0]["notes"] == "kept, as is"
    fixed = [{**r, **{k: v for k, v in row(int(r["_error_row"]) - 1).items()}} for r in rows]
    again = start(fixed, name="fixed.csv", columns=list(rows[0]))
    assert (again.inserted_rows, again.failed_rows) == (10, 0)
    assert "".join(stream_errors(conn, again)).count("_error_row") == 1


def test_a_replay_imports_rows_that_are_good_now_and_updates_the_counters(start, conn, database_url):
    job = start(mixed_rows(200))
    conn.execute(
        "insert into kintell.users (email, name, role) values ('nobody@example.com', 'x', 'participant')"
    )
    done = replay(database_url, job.id)
    assert (done.tried, done.imported) == (20, 2)
    assert (done.job.inserted_rows, done.job.failed_rows, done.job.status) == (182, 18, "completed")
    assert len(state(conn)["events"]) == 182
    assert replay(database_url, job.id).imported == 0


def test_a_replay_can_create_the_missing_users(start, conn, database_url):
    job = start(
        [row(i, participant_email="new.one@example.com", rating="7" if i == 3 else "") for i in range(10)]
    )
    assert job.failed_rows == 10
    done = replay(database_url, job.id, create_missing_users=True)
    assert (done.imported, done.job.failed_rows) == (9, 1)
    assert conn.execute(
        "select error_message from kintell.backfill_row_errors where resolved_at is null"
    ).fetchall() == [("Invalid rating: 7",)]


def test_a_replay_continues_after_conflicts_with_other_transactions(start, conn, database_url, monkeypatch):
    monkeypatch.setattr("dagster_backfills.domains.kintell.after.replay.BATCH", 4)
    job = start([row(i, participant_email="new.one@example.com") for i in range(10)])
    conn.execute("create sequence public.tries")
    conn.execute(
        "create function public.conflict() returns trigger language plpgsql as $$ begin"
        " if nextval('public.tries') in (2, 3, 5) then raise exception using errcode = '40P01'; end if;"
        " return null; end $$"
    )
    conn.execute(
        "create trigger conflict after insert on kintell.kintell_sessions"
        " for each statement execute function public.conflict()"
    )
    done = replay(database_url, job.id, create_missing_users=True)
    assert (done.tried, done.imported, done.job.failed_rows) == (10, 10, 0)
    assert conn.execute("select last_value from public.tries").fetchone() == (6,)


def test_a_replayed_row_with_a_repeated_id_stays_rejected(start, conn, database_url):
    job = start([row(1), row(2), row(1)])
    assert replay(database_url, job.id).imported == 0
    assert state(conn)["errors"][0][1] == "Duplicate session_id in file: s-000001"


def test_a_rollback_restores_the_tables_exactly(start, conn, database_url):
    start([row(i, rating="3") for i in range(40)], name="first.csv")
    before = conn.execute(WHOLE).fetchall()
    job = start(mixed_rows(90), on_duplicate="update")
    assert job.updated_rows and job.inserted_rows
    preview = preview_rollback(conn, job.id)
    assert (preview.removes, preview.restores, preview.keeps) == (job.inserted_rows, job.updated_rows, 0)
    assert conn.execute(WHOLE).fetchall() != before
    done = roll_back(database_url, job.id)
    assert (done.status, done.removed_rows, done.restored_rows) == (
        "rolled_back",
        job.inserted_rows,
        job.updated_rows,
    )
    assert conn.execute(WHOLE).fetchall() == before
    assert conn.execute(
        "select count(*) from kintell.event_outbox where job_id = %s", [job.id]
    ).fetchone() == (0,)
    with pytest.raises(UserError, match="is rolled_back"):
        roll_back(database_url, job.id)


def test_a_rollback_keeps_and_reports_what_was_edited_since(start, conn, database_url):
    start([row(0)], name="first.csv")
    job = start([row(0, rating="5"), row(1), row(2)], on_duplicate="update")
    conn.execute(
        "update kintell.kintell_sessions set feedback_text = 'edited' where external_session_id <> 's-000002'"
    )
    preview = preview_rollback(conn, job.id)
    assert (preview.removes, preview.restores, preview.kept) == (1, 0, ["s-000000", "s-000001"])
    done = roll_back(database_url, job.id)
    assert (done.removed_rows, done.restored_rows, done.kept_rows) == (1, 0, 2)
    assert [s[0] for s in conn.execute(SESSIONS)] == ["s-000000", "s-000001"]


def test_an_interrupted_rollback_is_resumed(start, conn, database_url, monkeypatch):
    job = start([row(i) for i in range(100)])
    monkeypatch.setattr("dagster_backfills.domains.kintell.after.rollback.BATCH", 30)

    def stop(removed, restored):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        roll_back(database_url, job.id, on_progress=stop)
    assert load_job(conn, job.id).removed_rows == 30
    with pytest.raises(UserError, match="is being rolled back"):
        Claim(database_url, job.id, "replay")
    assert roll_back(database_url, job.id).removed_rows == 100
    assert conn.execute("select count(*) from kintell.kintell_sessions").fetchone() == (0,)


@pytest.mark.parametrize("rewrites", [False, True])
def test_sessions_edited_during_a_rollback_are_kept(start, conn, database_url, monkeypatch, rewrites):
    if rewrites:
        start([row(i, rating="3") for i in range(6)], name="first.csv")
    job = start([row(i, rating="5") for i in range(6)], on_duplicate="update")
    assert job.updated_rows == (6 if rewrites else 0)
    monkeypatch.setattr("dagster_backfills.domains.kintell.after.rollback.BATCH", 2)
    done = []

    def edit(removed, restored):
        if not done:
            conn.execute(
                "update kintell.kintell_sessions set feedback_text = 'edited' where id ="
                " (select id from kintell.kintell_sessions where rating = 5 order by ctid desc limit 1)"
            )
        done.append(removed + restored)

    after = roll_back(database_url, job.id, on_progress=edit)
    assert sum(done) == after.removed_rows + after.restored_rows == 5
    assert after.kept_rows == 1
    edited = conn.execute(
        "select rating from kintell.kintell_sessions where feedback_text = 'edited'"
    ).fetchall()
    assert edited == [(5,)]


def test_a_rollback_looks_events_up_by_key_even_with_outdated_statistics(start, conn):
    """The index of those that wait holds a whole import by then: minutes for each batch."""
    job = start([row(i) for i in range(25)])
    conn.execute(
        "insert into kintell.event_outbox"
        " (session_id, event_type, position, id, job_id, external_session_id, published_at)"
        " select gen_random_uuid(), 'kintell.session.completed', -n, gen_random_uuid(), %s, 'x', now()"
        " from generate_series(1, 20000) as n",
        [job.id],
    )
    conn.execute("delete from kintell.event_outbox where published_at is null")
    conn.execute("analyze kintell.event_outbox")
    ids = [id for (id,) in conn.execute("select id from kintell.kintell_sessions")]
    binds = {"job": job.id, "ids": ids, "sending_upto": 0, "position": 0}
    plan = "\n".join(line for (line,) in conn.execute(f"explain {STATEMENTS.remove_sessions.sql}", binds))
    assert "event_outbox_pkey" in plan
    assert "event_outbox_waiting_idx" not in plan


def test_a_rollback_adds_an_event_for_each_event_already_published(start, conn, database_url):
    job = start([row(i) for i in range(3)])
    conn.execute(
        "update kintell.event_outbox set published_at = now() where external_session_id = 's-000001'"
    )
    roll_back(database_url, job.id)
    events = conn.execute(
        "select event_type, payload ->> 'externalSessionId', published_at is null "
        "from kintell.event_payloads order by position"
    ).fetchall()
    assert events == [
        ("kintell.session.completed", "s-000001", False),
        ("kintell.session.rolled_back", "s-000001", True),
    ]


def test_a_dry_run_validates_every_row_and_writes_nothing(start, conn, tmp_path):
    start([row(i) for i in range(20)], name="first.csv")
    before = state(conn)
    path = write_csv(tmp_path / "next.csv", mixed_rows(100))
    errors = tmp_path / "rejected" / "next.csv"
    verdict = validate(conn, str(path), [str(tmp_path)], error_file=str(errors))
    assert (verdict.total, verdict.new, verdict.duplicates, verdict.failed) == (100, 72, 18, 10)
    assert verdict.kinds["Invalid rating"] == 1
    assert verdict.missing == {"nobody@example.com": "participant"}
    assert len(list(csv.DictReader(io.StringIO(errors.read_text(encoding="utf-8-sig"))))) == 10
    assert state(conn) == before
    refused = validate(conn, str(path), [str(tmp_path)], on_duplicate="error")
    assert (refused.new, refused.failed) == (72, 28)


def test_preflight_names_bad_sample_rows_and_missing_users(start, conn, tmp_path):
    start([], name="nothing.csv")
    path = write_csv(tmp_path / "next.csv", mixed_rows(100))
    plain = to_plain_csv(open_file(str(path), [str(tmp_path)]))
    found = preflight(conn, plain, read_header(plain))
    assert found.missing == [("nobody@example.com", "participant")]
    assert (found.rows, len(found.sample_errors)) == (100, 9)
    assert register(conn, str(path), [str(tmp_path)]).preflight == found


def test_a_changed_file_is_refused_and_the_original_accepted(start, conn, database_url, tmp_path):
    path = write_csv(tmp_path / "a.csv", [row(i) for i in range(50)])
    job = register(conn, str(path), [str(tmp_path)]).job
    good = path.read_text()
    path.write_text(good.replace("s-000049", "s-000048"))
    with pytest.raises(FileError, match="has changed since job"):
        run_import(database_url, job, Options(), [str(tmp_path)])
    path.write_text(good)
    assert run_import(database_url, job, Options(), [str(tmp_path)]).status == "completed"


def test_starting_an_unfinished_file_again_finds_its_job(conn, tmp_path):
    path = write_csv(tmp_path / "a.csv", [row(1)])
    first = register(conn, str(path), [str(tmp_path)])
    copy = write_csv(tmp_path / "b.csv", [row(1)])
    second = register(conn, str(copy), [str(tmp_path)])
    assert (second.job, second.existing) == (first.job, True)
    with pytest.raises(UserError, match="on_duplicate = skip"):
        register(conn, str(copy), [str(tmp_path)], on_duplicate="update")


def test_a_moved_file_takes_the_place_of_the_one_that_its_job_was_registered_with(
    start, conn, database_url, tmp_path
):
    path = write_csv(tmp_path / "a.csv", [row(i) for i in range(50)])
    first = register(conn, str(path), [str(tmp_path)])
    copy = write_csv(tmp_path / "b.csv", [row(i) for i in range(50)])
    assert not register(conn, str(copy), [str(tmp_path)]).is_its_file
    assert load_job(conn, first.job).file_url == str(path)
    path.unlink()
    moved = register(conn, str(copy), [str(tmp_path)])
    assert (moved.job, moved.existing, moved.is_its_file) == (first.job, True, True)
    assert run_import(database_url, moved.job, Options(), [str(tmp_path)]).inserted_rows == 50


def test_a_cancelled_job_stays_cancelled(conn, database_url, tmp_path):
    path = write_csv(tmp_path / "a.csv", [row(1)])
    job = register(conn, str(path), [str(tmp_path)]).job
    assert set_status(conn, job, "cancel").status == "cancelled"
    with pytest.raises(UserError, match="is cancelled and can't be resumed"):
        run_import(database_url, job, Options(), [str(tmp_path)])
    with pytest.raises(UserError, match="and can't be paused"):
        set_status(conn, job, "pause")


def test_a_resume_reads_the_file_from_the_checkpoint_only(start, conn, database_url, tmp_path, monkeypatch):
    from dagster_backfills.domains.kintell.importing import importer

    job = start([row(i, rating="9") for i in range(100)], max_errors=60)
    assert (job.status, job.processed_rows) == ("failed", 75)
    offsets = []
    read = importer.read_blocks
    monkeypatch.setattr(importer, "read_blocks", lambda *args: offsets.append(args[2]) or read(*args))
    done = run_import(database_url, job.id, Options(), [str(tmp_path)])
    assert offsets == [job.checkpoint_offset]
    assert (done.status, done.failed_rows, done.attempt) == ("completed", 100, 2)


def test_the_database_rejects_counters_that_do_not_add_up(start, conn):
    import psycopg

    job = start([row(1)])
    with pytest.raises(psycopg.errors.CheckViolation, match="accounting"):
        conn.execute("update kintell.backfill_jobs set inserted_rows = 2 where id = %s", [job.id])
    with pytest.raises(psycopg.errors.CheckViolation, match="cannot become running"):
        conn.execute("update kintell.backfill_jobs set status = 'running', activity = 'import'")


def test_a_longer_lease_does_not_make_heartbeats_rarer(conn, database_url, tmp_path, monkeypatch):
    monkeypatch.setattr("dagster_backfills.domains.kintell.importing.claims.LEASE_SECONDS", 0.3)
    job = register(conn, str(write_csv(tmp_path / "a.csv", [row(1)])), [str(tmp_path)]).job
    with Claim(database_url, job, "import", lease=6_000):
        first, deadline = load_job(conn, job).heartbeat_at, time.monotonic() + 60
        while load_job(conn, job).heartbeat_at == first:
            assert time.monotonic() < deadline, "no heartbeat within the usual lease"
            time.sleep(0.01)


def test_the_number_of_concurrent_imports_is_limited(conn, database_url, tmp_path):
    from dagster_backfills.domains.kintell.importing.claims import TooManyImports

    jobs = [
        register(conn, str(write_csv(tmp_path / f"{i}.csv", [row(i)])), [str(tmp_path)]).job for i in range(3)
    ]
    with (
        Claim(database_url, jobs[0], "import", max_imports=2),
        Claim(database_url, jobs[1], "import", max_imports=2),
        pytest.raises(TooManyImports),
    ):
        Claim(database_url, jobs[2], "import", max_imports=2)
