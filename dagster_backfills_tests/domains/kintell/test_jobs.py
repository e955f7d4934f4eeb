"""Whole runs through Dagster."""

import json
from pathlib import Path

import dagster as dg
import pytest

from dagster_backfills.dagster.io_manager import PostgresIOManager
from dagster_backfills.dagster.resource import PostgresResource
from dagster_backfills.definitions import defs as load_definitions
from dagster_backfills.defs.kintell.resources import KintellSettings
from dagster_backfills.defs.kintell.sensors import kintell_inbox
from dagster_backfills_tests.domains.kintell.sample import add_users, mixed_rows, row, write_csv

SESSIONS = dg.AssetKey(["kintell", "kintell_sessions"])
SUMMARY = dg.AssetKey(["kintell", "daily_session_summary"])


@pytest.fixture(scope="module")
def definitions():
    return load_definitions()


@pytest.fixture
def run(conn, database_url, tmp_path, definitions):
    """Execute a job of the code location on the test's database."""
    add_users(conn)
    postgres = PostgresResource(url=database_url)
    resources = {
        "postgres": postgres,
        "io_manager": PostgresIOManager(postgres=postgres),
        "kintell": KintellSettings(allowed_locations=str(tmp_path), error_files=str(tmp_path / "errors")),
    }
    with dg.DagsterInstance.ephemeral() as instance:

        def execute(name, config=None, raises=True):
            # The location's own jobs, with resources of the test's own in place of those from the environment.
            job = definitions.resolve_job_def(name)
            return job.graph.to_job(
                name=name,
                resource_defs=resources,
                config=_config(name, config),
                executor_def=dg.in_process_executor,
                hooks=job.hook_defs,
            ).execute_in_process(instance=instance, raise_on_error=raises)

        execute.instance = instance
        yield execute


OPS = {
    "import_kintell_sessions": ("import_sessions",),
    "rollback_kintell_import": ("roll_back_sessions",),
    "replay_kintell_errors": ("replay_errors",),
}


def _config(name, config):
    return {"ops": {op: {"config": config} for op in OPS.get(name, ())}}


def job_row(conn):
    return conn.execute(
        "select id, status, inserted_rows, failed_rows, run_id, error_file, missing_users from kintell.backfill_jobs"
    ).fetchone()


def test_the_launchpad_takes_one_flat_config(definitions):
    from dagster import validate_run_config

    job = definitions.resolve_job_def("import_kintell_sessions")
    spread = validate_run_config(job, {"file": "a.csv", "on_duplicate": "update", "max_errors": 3})
    assert spread["ops"]["import_sessions"]["config"]["max_errors"] == 3
    with pytest.raises(dg.DagsterInvalidConfigError):
        validate_run_config(job, {"file": "a.csv", "batch_rows": 0, "nonsense": 1})


def test_an_import_reports_its_result_and_the_changed_days_are_summarized(run, conn, tmp_path):
    path = write_csv(tmp_path / "a.csv", mixed_rows(120))
    result = run("import_kintell_sessions", {"file": str(path)})
    job, status, inserted, failed, run_id, error_file, missing = job_row(conn)
    assert (status, inserted, failed, run_id, missing) == ("completed", 108, 12, result.run_id, 1)
    event = run.instance.get_latest_materialization_event(SESSIONS).asset_materialization
    assert event.metadata["inserted rows"].value == 108
    assert event.metadata["error file"].value == error_file == str(tmp_path / "errors" / f"{job}.csv")
    frequent = event.metadata["frequent errors"].value.records
    assert sum(record.data["rows"] for record in frequent) == 12
    run("refresh_daily_session_summary")
    assert (
        conn.execute(
            "select day, sessions from kintell.daily_session_summary "
            "except select day, sessions from kintell.sessions_per_date"
        ).fetchall()
        == []
    )
    days = conn.execute("select count(*), sum(sessions) from kintell.daily_session_summary").fetchone()
    assert days[1] == 108
    assert len(run.instance.get_materialized_partitions(SUMMARY)) == days[0]
    assert conn.execute("select count(*) from backfill.stale").fetchone() == (0,)


def test_a_connection_lost_while_the_file_is_registered_does_not_lose_the_file(run, conn, tmp_path):
    """The inbox sensor requests each file once."""
    conn.execute(
        "create sequence registrations;"
        "create function lose_once() returns trigger language plpgsql as $$ begin"
        " if nextval('public.registrations') = 1 then perform pg_terminate_backend(pg_backend_pid()); end if;"
        " return new; end $$;"
        "create trigger lose_once before insert on kintell.backfill_jobs for each row execute function lose_once()"
    )
    path = write_csv(tmp_path / "a.csv", [row(1)])
    assert run("import_kintell_sessions", {"file": str(path), "once": True}).success
    assert job_row(conn)[1:3] == ("completed", 1)


def test_each_import_run_reports_its_own_checks(run, conn, tmp_path):
    runs = [
        run(
            "import_kintell_sessions", {"file": str(write_csv(tmp_path / f"{n}.csv", mixed_rows(20 + n)))}
        ).run_id
        for n in range(2)
    ]
    for check in ("imports_add_up", "no_dead_imports", "events_leave"):
        records = run.instance.event_log_storage.get_asset_check_execution_history(
            dg.AssetCheckKey(SESSIONS, check), limit=9
        )
        found = [record.event.dagster_event.event_specific_data for record in reversed(records)]
        assert [(each.passed, each.metadata["run"].value) for each in found] == [(True, id_) for id_ in runs]


def test_a_rollback_updates_the_daily_summary(run, conn, tmp_path):
    path = write_csv(tmp_path / "a.csv", [row(i) for i in range(50)])
    run("import_kintell_sessions", {"file": str(path)})
    run("refresh_daily_session_summary")
    job = str(job_row(conn)[0])
    run("rollback_kintell_import", {"job": job})
    assert job_row(conn)[1] == "completed"
    run("rollback_kintell_import", {"job": job, "dry_run": False})
    assert job_row(conn)[1] == "rolled_back"
    event = run.instance.get_latest_materialization_event(SESSIONS).asset_materialization
    assert (event.metadata["inserted rows"].value, event.metadata["removed"].value) == (0, 50)
    assert event.description == "a.csv: rolled_back: 50 removed, 0 restored, 0 kept"
    run("refresh_daily_session_summary")
    assert conn.execute("select count(*) from kintell.daily_session_summary").fetchone() == (0,)


def test_a_job_that_was_stopped_fails_its_run_with_its_reason_and_is_resumed(run, conn, tmp_path):
    path = write_csv(tmp_path / "a.csv", mixed_rows(200))
    result = run(
        "import_kintell_sessions", {"file": str(path), "batch_rows": 50, "max_errors": 7}, raises=False
    )
    assert not result.success
    failure = next(e for e in result.all_events if e.is_step_failure)
    assert "max_errors is 7" in failure.step_failure_data.error.message
    job = str(job_row(conn)[0])
    assert run("import_kintell_sessions", {"job": job}).success
    assert job_row(conn)[1:4] == ("completed", 180, 20)


def test_a_stopped_job_is_rolled_back_on_request(run, conn, tmp_path):
    path = write_csv(tmp_path / "a.csv", mixed_rows(200))
    config = {"file": str(path), "batch_rows": 50, "max_errors": 7, "rollback_on_failure": True}
    assert not run("import_kintell_sessions", config, raises=False).success
    assert job_row(conn)[1] == "rolled_back"
    assert conn.execute("select count(*) from kintell.kintell_sessions").fetchone() == (0,)


def test_a_dry_run_writes_nothing(run, conn, tmp_path):
    path = write_csv(tmp_path / "a.csv", mixed_rows(50))
    result = run("import_kintell_sessions", {"file": str(path), "dry_run": True})
    assert result.success
    assert job_row(conn) is None
    assert conn.execute("select count(*) from kintell.event_outbox").fetchone() == (0,)


def test_a_dry_run_shows_new_and_changed_sessions_in_a_table(run, conn, tmp_path):
    path = write_csv(tmp_path / "a.csv", [row(i, feedback_text="so") for i in range(4)])
    run("import_kintell_sessions", {"file": str(path)})
    rows = [row(1, feedback_text="a|b\nc"), row(2, feedback_text="so"), row(5), row(6, rating="9")]
    write_csv(path, rows)
    result = run("import_kintell_sessions", {"file": str(path), "dry_run": True})
    found = next(event.step_output_data.metadata for event in result.all_events if event.is_successful_output)
    assert found["preview"].value.split("\n") == [
        "| sessions | rows |",
        "| --- | --- |",
        "| new | 1 |",
        "| changed: kept as they are | 1 |",
        "| the same | 1 |",
        "| rejected | 1 |",
        "",
        "| column | changed | for example | before | after |",
        "| --- | --- | --- | --- | --- |",
        "| feedback_text | 1 | s-000001 | so | a&#124;b c |",
    ]
    (frequent,) = found["frequent errors"].value.records
    assert frequent.data == {
        "error": "Invalid rating", "rows": 1, "row": 4, "value": "9", "message": "Invalid rating: 9"
    }  # fmt: skip


def test_a_replay_reports_what_it_imported(run, conn, tmp_path):
    path = write_csv(tmp_path / "a.csv", [row(1, participant_email="new@example.com"), row(2)])
    run("import_kintell_sessions", {"file": str(path)})
    error_file = Path(job_row(conn)[5])
    assert "Participant not found: new@example.com" in error_file.read_text()
    run("replay_kintell_errors", {"job": str(job_row(conn)[0]), "create_missing_users": True})
    assert job_row(conn)[2:4] == (2, 0)
    assert error_file.read_text().count("\n") == 1, "an imported row is still in the error file"


def test_a_bad_file_fails_the_run_with_one_clear_sentence(run, conn, tmp_path):
    path = tmp_path / "a.csv"
    path.write_text("a,b\n1,2\n")
    result = run("import_kintell_sessions", {"file": str(path)}, raises=False)
    failure = next(e for e in result.all_events if e.is_step_failure)
    assert "lacks the required columns session_id" in failure.step_failure_data.error.message
    assert job_row(conn) is None


def test_a_file_in_the_inbox_is_imported_once_it_stops_changing(run, conn, tmp_path, definitions):
    inbox = tmp_path / "inbox"
    inbox.mkdir()
    settings = KintellSettings(inbox=str(inbox), allowed_locations=str(tmp_path))
    write_csv(inbox / "whatever it is called", [row(1), row(2)])
    (inbox / "growing.csv.partial").write_text("session_id")
    cursor, requests = None, []

    def tick():
        nonlocal cursor
        context = dg.build_sensor_context(cursor=cursor, resources={"kintell": settings})
        result = kintell_inbox(context)
        if isinstance(result, dg.SkipReason):
            cursor = context.cursor
            return []
        cursor = result.cursor
        return [request.run_config["file"] for request in result.run_requests]

    assert tick() == []
    assert tick() == [str(inbox / "whatever it is called")]
    assert tick() == []
    write_csv(inbox / "the same again.csv", [row(1), row(2)])
    assert tick() == []
    requests = tick()
    assert requests == [str(inbox / "the same again.csv")]
    assert json.loads(cursor)
    for _ in range(2):
        run("import_kintell_sessions", {"file": requests[0], "once": True})
    assert conn.execute("select count(*) from kintell.backfill_jobs").fetchone() == (1,)
