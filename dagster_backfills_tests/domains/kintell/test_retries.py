"""A run retried on another machine has only the database and the file of the first run."""

import shutil
from functools import cache
from pathlib import Path

import dagster as dg
import pytest

from dagster_backfills.definitions import defs
from dagster_backfills.domains.kintell.file import register
from dagster_backfills_tests.domains.kintell.sample import add_users, mixed_rows, write_csv

SESSIONS = dg.AssetKey(["kintell", "kintell_sessions"])


@cache
def location():
    return defs()


def import_job():
    return location().resolve_job_def("import_kintell_sessions")


@pytest.fixture
def run(conn, database_url, tmp_path, monkeypatch):
    """Run the location's own job; with an earlier run's id, from its failure, as a retry in another pod is."""
    add_users(conn)
    monkeypatch.setenv("DATABASE_URL", database_url)
    monkeypatch.setenv("KINTELL_ALLOWED_LOCATIONS", str(tmp_path))
    monkeypatch.setenv("KINTELL_ERROR_FILES", str(tmp_path / "errors"))
    with dg.instance_for_test() as instance:

        def execute(config, after=None):
            again = dg.ReexecutionOptions.from_failure(after, instance) if after else None
            if after:
                shutil.rmtree(Path(instance.storage_directory()), ignore_errors=True)
            return dg.execute_job(
                dg.reconstructable(import_job), instance, run_config=config, reexecution_options=again
            )

        execute.instance = instance
        yield execute


def job_row(conn):
    return conn.execute(
        "select status, attempt, inserted_rows, failed_rows, run_id, error_file is not null"
        " from kintell.backfill_jobs"
    ).fetchall()


def test_a_retried_run_resumes_its_job_without_registering_the_file_again(run, conn, tmp_path, monkeypatch):
    config = {"file": str(write_csv(tmp_path / "a.csv", mixed_rows(200)))}
    conn.execute("alter table kintell.event_outbox rename to hidden")
    first = run(config)
    assert not first.success
    assert job_row(conn) == [("failed", 1, 0, 0, first.run_id, False)]
    conn.execute("alter table kintell.hidden rename to event_outbox")
    monkeypatch.setattr(register, "preflight", None)
    second = run(config, first.run_id)
    assert second.success
    assert job_row(conn) == [("completed", 2, 180, 20, second.run_id, True)]


@pytest.mark.parametrize("resumed", [False, True])
def test_a_retried_run_finishes_the_steps_after_the_import(run, conn, tmp_path, resumed, monkeypatch):
    config = {"file": str(write_csv(tmp_path / "a.csv", mixed_rows(200)))}
    if resumed:
        job = register.register(conn, config["file"], [str(tmp_path)]).job
        config = {"job": str(job)}
    (tmp_path / "errors").write_text("no folder")
    first = run(config)
    assert not first.success
    assert job_row(conn) == [("completed", 1, 180, 20, first.run_id, False)]
    (tmp_path / "errors").unlink()
    second = run(config, first.run_id)
    assert second.success
    assert job_row(conn) == [("completed", 1, 180, 20, first.run_id, True)]
    event = run.instance.get_latest_materialization_event(SESSIONS)
    assert event.run_id == second.run_id


def test_a_retried_run_with_a_changed_file_starts_a_new_import(run, conn, tmp_path):
    path = write_csv(tmp_path / "a.csv", mixed_rows(20))
    (tmp_path / "errors").write_text("no folder")
    first = run({"file": str(path)})
    (tmp_path / "errors").unlink()
    write_csv(path, mixed_rows(40))
    assert run({"file": str(path)}, first.run_id).success
    done = conn.execute("select inserted_rows, skipped_rows from kintell.backfill_jobs order by created_at")
    assert done.fetchall() == [(18, 0), (18, 18)]
