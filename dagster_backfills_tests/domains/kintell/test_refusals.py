"""If Postgres rejects row after row, the table is at fault and the import stops."""

import pytest

from dagster_backfills.domains.kintell.after.replay import replay
from dagster_backfills.domains.kintell.file.register import register
from dagster_backfills.domains.kintell.importing import writer
from dagster_backfills.domains.kintell.importing.importer import Options, run_import
from dagster_backfills.domains.kintell.importing.jobs import load_job
from dagster_backfills_tests.domains.kintell.sample import add_users, row, write_csv


@pytest.fixture
def broken(conn, monkeypatch):
    """A trigger that refuses whatever comes, as one does that calls a function that is gone."""
    monkeypatch.setattr(writer, "MAX_REFUSED", 50)
    add_users(conn)
    conn.execute(
        "create function public.broken() returns trigger language plpgsql as $$ begin"
        " if new.rating is null then raise exception 'no rate for this'; end if; return new; end $$"
    )
    conn.execute(
        "create trigger broken before insert on kintell.kintell_sessions"
        " for each row execute function public.broken()"
    )


@pytest.fixture
def job(conn, tmp_path, broken):
    rows = [row(i, rating="") for i in range(70)]
    return register(conn, str(write_csv(tmp_path / "a.csv", rows)), [str(tmp_path)]).job


def test_a_table_that_rejects_every_row_fails_the_import_which_resumes_once_it_is_fixed(
    job, conn, database_url, tmp_path
):
    with pytest.raises(writer.AllRefused, match="rejected 51 consecutive rows, up to row 51: no rate"):
        run_import(database_url, job, Options(), [str(tmp_path)])
    stopped = load_job(conn, job)
    assert (stopped.status, stopped.processed_rows, stopped.failed_rows) == ("failed", 0, 0)
    assert "no rate for this" in stopped.error_message
    conn.execute("drop trigger broken on kintell.kintell_sessions")
    assert run_import(database_url, job, Options(), [str(tmp_path)]).inserted_rows == 70


def test_with_an_error_limit_each_row_is_rejected_alone(job, database_url, tmp_path):
    done = run_import(database_url, job, Options(max_errors=70), [str(tmp_path)])
    assert (done.status, done.failed_rows) == ("completed", 70)
    with pytest.raises(writer.AllRefused):
        replay(database_url, job)


def test_if_some_rows_are_accepted_any_number_of_others_is_rejected(conn, database_url, tmp_path, broken):
    rows = [row(i, rating="5" if i % 40 == 0 else "") for i in range(90)]
    found = register(conn, str(write_csv(tmp_path / "a.csv", rows)), [str(tmp_path)]).job
    done = run_import(database_url, found, Options(), [str(tmp_path)])
    assert (done.status, done.inserted_rows, done.failed_rows) == ("completed", 3, 87)
