import psycopg
import pytest

from dagster_backfills.domains.kintell.file.files import FileError
from dagster_backfills.domains.kintell.file.register import register
from dagster_backfills.domains.kintell.importing.importer import Options, run_import
from dagster_backfills_tests.domains.kintell.sample import add_users, mixed_rows, row, state, write_csv


@pytest.fixture
def start(conn, database_url, tmp_path):
    """Import rows as a file and return the job."""
    add_users(conn)

    def run(rows, on_duplicate="skip", name="sessions.csv", on_progress=lambda _: None, **options):
        path = write_csv(tmp_path / name, rows)
        job = register(conn, str(path), [str(tmp_path)], on_duplicate=on_duplicate).job
        return run_import(
            database_url,
            job,
            Options(**{"batch_rows": 25, **options}),
            [str(tmp_path)],
            on_progress=on_progress,
        )

    return run


def test_good_rows_become_sessions_with_events_and_bad_rows_are_kept(start, conn):
    job = start(mixed_rows(200))
    assert job.status == "completed"
    assert job.counts == {
        "total_rows": 200,
        "processed_rows": 200,
        "inserted_rows": 180,
        "updated_rows": 0,
        "skipped_rows": 0,
        "failed_rows": 20,
    }
    found = state(conn)
    assert len(found["sessions"]) == 180
    assert [event[1] for event in found["events"]] == sorted(s[0] for s in found["sessions"])
    assert [e[1] for e in found["errors"][:9]] == [
        "Missing session_id",
        "Unknown session type: Chat",
        "Participant not found: nobody@example.com",
        "Invalid email format: not an address",
        "Invalid date format: yesterday",
        "Invalid duration: 0",
        "Invalid rating: 6",
        "Invalid language level: D1",
        "Duplicate session_id in file: s-000000",
    ]
    assert found["errors"][1][0] == 20


def test_importing_a_file_twice_changes_nothing(start, conn):
    start(mixed_rows(120))
    before = state(conn)
    job = start(mixed_rows(120))
    assert (job.inserted_rows, job.skipped_rows, job.failed_rows) == (0, 108, 12)
    after = state(conn)
    assert (after["sessions"], after["events"]) == (before["sessions"], before["events"])


def test_with_update_only_sessions_that_differ_are_updated(start, conn):
    start([row(i) for i in range(60)])
    job = start(
        [row(i, rating="4" if i < 10 else row(i)["rating"]) for i in range(70)], on_duplicate="update"
    )
    differed = sum(row(i)["rating"] != "4" for i in range(10))
    assert (job.inserted_rows, job.updated_rows, job.skipped_rows) == (10, differed, 60 - differed)
    assert {s[7] for s in state(conn)["sessions"][:10]} == {4}


def test_with_error_duplicates_are_rejected(start, conn):
    start([row(i) for i in range(10)])
    job = start([row(i) for i in range(12)], on_duplicate="error", name="again.csv")
    assert (job.inserted_rows, job.failed_rows) == (2, 10)
    assert state(conn)["errors"][0][1] == "Duplicate key value violates unique constraint: s-000000"


def test_a_row_reports_all_of_its_errors(start, conn):
    start([row(1, session_type="x", participant_email="y", rating="0", duration_min="ten")])
    assert state(conn)["errors"][0][1] == (
        "Unknown session type: x; Invalid email format: y; Invalid duration: ten; Invalid rating: 0"
    )


def test_missing_users_are_created_on_request(start, conn):
    rows = [row(i, participant_email="Ana.maria-lopez@example.com") for i in range(60)]
    job = start(rows, create_missing_users=True)
    assert job.inserted_rows == 60
    made = conn.execute("select email, name, role from kintell.users where email like 'ana%'").fetchall()
    assert made == [("ana.maria-lopez@example.com", "Ana Maria Lopez", "participant")]


def test_a_job_over_its_error_limit_stops_and_keeps_its_sessions(start, conn):
    job = start([row(i, rating="9" if i % 2 else "") for i in range(200)], max_errors=30)
    assert job.status == "failed"
    assert "max_errors is 30" in job.error_message
    assert job.processed_rows == 75
    assert job.processed_rows == job.inserted_rows + job.failed_rows


def test_a_row_that_only_postgres_rejects_is_rejected_alone(start, conn):
    conn.execute("alter table kintell.kintell_sessions add check (feedback_text <> 'refuse me')")
    rows = [row(i, **({"feedback_text": "refuse me"} if i in (7, 8, 60) else {})) for i in range(100)]
    job = start(rows)
    assert (job.status, job.inserted_rows, job.failed_rows) == ("completed", 97, 3)
    errors = state(conn)["errors"]
    assert [e[0] for e in errors] == [8, 9, 61]
    assert "violates check constraint" in errors[0][1]


def refuse(conn, code, deferred):
    """A trigger as an application may have it."""
    conn.execute(
        "create function public.app_rule() returns trigger language plpgsql as $$ begin"
        " if new.feedback_text = 'refuse me' then"
        f" raise exception 'not this one' using errcode = '{code}'; end if; return new; end $$"
    )
    conn.execute(
        "create constraint trigger app_rule after insert on kintell.kintell_sessions"
        f" {'deferrable initially deferred' if deferred else ''}"
        " for each row execute function public.app_rule()"
    )


@pytest.mark.parametrize("code", ["P0001", "AP001", "42501", "23514", "0A000"])
@pytest.mark.parametrize("deferred", [False, True])
def test_a_row_that_an_application_trigger_rejects_is_rejected_alone(start, conn, code, deferred):
    refuse(conn, code, deferred)
    rows = [row(i, **({"feedback_text": "refuse me"} if i in (7, 60) else {})) for i in range(100)]
    job = start(rows)
    assert (job.status, job.inserted_rows, job.failed_rows) == ("completed", 98, 2)
    assert [e[:2] for e in state(conn)["errors"]] == [(8, "not this one"), (61, "not this one")]


def test_an_error_not_caused_by_a_row_fails_the_job_which_can_be_resumed(start, conn):
    conn.execute("alter table kintell.event_outbox rename to hidden")
    with pytest.raises(psycopg.errors.UndefinedTable):
        start([row(i) for i in range(100)])
    status, activity, message = conn.execute(
        "select status, activity, error_message from kintell.backfill_jobs"
    ).fetchone()
    assert (status, activity) == ("failed", None)
    assert 'relation "kintell.event_outbox" does not exist' in message
    conn.execute("alter table kintell.hidden rename to event_outbox")
    assert start([row(i) for i in range(100)]).inserted_rows == 100


@pytest.mark.parametrize(
    ("error", "status"), [(RuntimeError("odd\0"), "failed"), (KeyboardInterrupt(), "paused")]
)
def test_an_import_that_ends_in_any_way_is_not_left_running(start, conn, error, status):
    def stop(progress):
        raise error

    with pytest.raises(type(error)):
        start([row(i) for i in range(100)], on_progress=stop)
    found = conn.execute("select status, activity from kintell.backfill_jobs").fetchone()
    assert found == (status, None)
    job = start([row(i) for i in range(100)])
    assert (job.status, job.inserted_rows, job.attempt) == ("completed", 100, 2)


def test_an_import_whose_connections_break_as_it_fails_is_not_left_running(start, conn):
    def stop(progress):
        conn.execute(
            "select pg_terminate_backend(pid) from pg_stat_activity"
            " where application_name like 'kintell%' and datname = current_database()"
        )
        raise RuntimeError("odd")

    with pytest.raises(RuntimeError):
        start([row(i) for i in range(100)], on_progress=stop)
    assert conn.execute("select status, activity from kintell.backfill_jobs").fetchone() == ("failed", None)


def test_a_file_that_is_gone_fails_a_job_whose_worker_died(conn, database_url, tmp_path):
    path = write_csv(tmp_path / "a.csv", [])
    job = register(conn, str(path), [str(tmp_path)]).job
    conn.execute("update kintell.backfill_jobs set status = 'running', activity = 'import'")
    path.unlink()
    with pytest.raises(FileError, match="does not exist"):
        run_import(database_url, job, Options(), [str(tmp_path)])
    assert conn.execute("select status, activity from kintell.backfill_jobs").fetchone() == ("failed", None)


def test_users_deleted_during_an_import_are_reported_as_missing(start, conn):
    def remove(progress):
        conn.execute("delete from kintell.users where email = 'Volunteer4@example.com'")

    rows = [row(i, volunteer_email=f"volunteer{i // 50 * 4}@example.com") for i in range(100)]
    job = start(rows, on_progress=remove)
    assert (job.status, job.inserted_rows, job.failed_rows) == ("completed", 50, 50)
    messages = {message for _, message, *_ in state(conn)["errors"]}
    assert messages == {"Volunteer not found: volunteer4@example.com"}


def test_a_session_has_a_job_and_a_job_with_sessions_stays(start, conn):
    job = start([row(1), row(2)])
    for statement in (
        "update kintell.kintell_sessions set backfill_job_id = gen_random_uuid()",
        "delete from kintell.backfill_jobs",
        "update kintell.backfill_jobs set id = gen_random_uuid()",
    ):
        with pytest.raises(psycopg.errors.ForeignKeyViolation, match="import job"):
            conn.execute(statement)
    assert conn.execute("select distinct backfill_job_id from kintell.kintell_sessions").fetchall() == [
        (job.id,)
    ]
    conn.execute("delete from kintell.kintell_sessions")
    conn.execute("delete from kintell.backfill_jobs")


def test_an_import_without_rows_completes(start):
    assert start([]).status == "completed"


@pytest.mark.parametrize("mode", ["skip", "update", "error"])
def test_a_repeated_id_is_detected_batches_later_whatever_happened_to_the_first(start, conn, mode):
    start([row(0)], name="before.csv")
    rows = [row(i) for i in range(60)]
    rows[50] = row(0, rating="3")  # its first is another import's session
    rows[51] = row(1, rating="3")  # its first is a session of this import
    rows[52] = row(2, participant_email="nobody@example.com")
    job = start(rows, on_duplicate=mode, batch_rows=5)
    errors = {number: message for number, message, *_ in state(conn)["errors"] if number > 1}
    assert errors == {
        51: "Duplicate session_id in file: s-000000",
        52: "Duplicate session_id in file: s-000001",
        53: "Participant not found: nobody@example.com; Duplicate session_id in file: s-000002",
    }
    assert (job.inserted_rows, job.failed_rows) == (56, 3 + (mode == "error"))


def test_ids_that_repeat_in_the_next_batch_do_not_make_writers_wait_for_each_other(start, conn):
    rows = [row(i) for i in range(20)] + [row(i) for i in reversed(range(20))]
    job = start(rows, batch_rows=20)
    assert (job.inserted_rows, job.failed_rows) == (20, 20)


def test_repeated_ids_in_any_script_and_order_are_detected(start, conn):
    ids = ["z", "Z", "a", "Ä", "ä", "é", "-1", "10", "9", " x y ", "中", "🙂", "~", "ID_1", "id-1"]
    assert start([row(n, session_id=i) for n, i in enumerate(ids)]).inserted_rows == len(ids)
    between = [*reversed(ids), "m", "\U0010ffff", "!"]
    job = start([row(n, session_id=i) for n, i in enumerate(between)], batch_rows=3)
    assert (job.inserted_rows, job.skipped_rows, job.failed_rows) == (3, len(ids), 0)
