"""`backfills status`: the page of all backfills, once and with `--watch`."""

import json
import os
import pty
import signal
from contextlib import suppress
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import psycopg
import pytest

from dagster_backfills.cli import instance as instance_module
from dagster_backfills.cli.instance import InstanceState, Tick, read_instance, read_ticks
from dagster_backfills.cli.status import remarks, sections
from dagster_backfills.cli.status_page import StatusPage, read_page
from dagster_backfills.instance.dagster_home import dagster_environment
from dagster_backfills.instance.launching import CODE_LOCATION, create_run, open_instance
from dagster_backfills.postgres.embedded import EmbeddedServer
from dagster_backfills_tests.cli.conftest import SCRIPT, Cli
from dagster_backfills_tests.programs import Program, run, start_reading


def run_at_work(conn: psycopg.Connection) -> None:
    """A run that has done 1 of 4 partitions, 25 of 100 units, in ten seconds."""
    conn.execute(
        "insert into backfill.runs (run_id, root_run_id, assets, partitions, units, started_at)"
        " values ('run-1', 'run-1', '{progress/cohort_stats}', 4, 100, '2026-06-30 12:00:00+00')"
    )
    conn.execute(
        "insert into backfill.batches (batch_id, asset, run_id, partitions, snapshot, units, seconds, committed_at)"
        " values (gen_random_uuid(), 'progress/cohort_stats', 'run-1', '{a}', pg_current_snapshot(), 25, 10,"
        " '2026-06-30 12:00:10+00')"
    )


def failure(conn: psycopg.Connection, unit: str, message: str = "refused") -> None:
    conn.execute(
        "insert into backfill.failures (run_id, asset, partition, unit, error_class, message)"
        " values ('run-1', 'progress/cohort_stats', 'a', %s, 'CheckViolation', %s)",
        [unit, message],
    )


def tables(page: StatusPage) -> dict[str, list[dict[str, Any]]]:
    return {
        each.title: [dict(zip(each.headers, row, strict=True)) for row in each.rows]
        for each in sections(page)
    }


def test_the_page_shows_what_runs_fails_and_waits_in_every_domain(
    conn: psycopg.Connection, database_url: str
):
    run_at_work(conn)
    failure(conn, "u1")
    failure(conn, "u2", "postgresql://me:hidden@host/ is away")
    conn.execute(
        "select jobs.enqueue_background_job('transcription', %s)", ['{"audio_url": "https://a.test/b"}']
    )
    page = read_page(conn, database_url)
    shown = tables(page)
    assert {row["backfill"] for row in shown["backfills"]} == {
        "queue", "kintell", "progress_stats", "scoring", "training_completions",
    }  # fmt: skip
    (run,) = shown["running"]
    assert (run["partitions"], run["units"]) == ("1 of 4", "25 of 100")
    assert page.running[0]["time_left"] == timedelta(seconds=30)
    assert page.running[0]["units_per_second"] == 2.5
    (queued,) = shown["queue of background jobs"]
    assert (queued["type"], queued["waiting"]) == ("transcription", 1)
    assert len(shown["scoring chain"]) == 3
    (failed,) = shown["open failures"]
    assert (failed["units"], failed["message"]) == (2, "postgresql://me:***@host/ is away")
    assert "imports" not in shown


def test_a_running_import_is_shown_with_its_rate(conn: psycopg.Connection, database_url: str):
    conn.execute(
        "insert into kintell.backfill_jobs (status, file_name, file_url, file_size, file_sha256, file_stamp, columns,"
        " total_rows, processed_rows, inserted_rows, checkpoint_offset, attempt, activity, heartbeat_at,"
        " started_at, last_processed_row) values ('pending', 'f.csv', '/f.csv', 1, repeat('a', 64), 's', '{a}',"
        " 100, 0, 0, 0, 0, null, null, null, 0)"
    )
    (row,) = tables(read_page(conn, database_url, ticks=False))["imports"]
    assert (row["file"], row["status"], row["rows"]) == ("f.csv", "pending", "0 of 100")


def test_status_creates_nothing_in_the_database(conn: psycopg.Connection, database_url: str):
    page = read_page(conn, database_url)
    assert page.dagster.problem == instance_module.NOT_YET
    assert conn.execute("select to_regnamespace('dagster')").fetchone() == (None,)
    assert remarks(page) == [f"The state of Dagster is unknown: {instance_module.NOT_YET}"]


@pytest.fixture
def instance_url(database_with_dagster: str, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setenv("DATABASE_URL", database_with_dagster)
    for name, value in dagster_environment().items():
        monkeypatch.setenv(name, value)
    return database_with_dagster


def test_ticks_list_every_schedule_and_sensor_with_its_next_time(instance_url: str):
    import dagster as dg
    from dagster._daemon.types import DaemonHeartbeat

    with dg.DagsterInstance.get() as instance:
        ticks = {tick.name: tick for tick in read_ticks(instance, datetime(2026, 6, 30, 1, tzinfo=UTC))}
        assert read_instance(instance_url, ticks=False).daemon_seconds is None
        instance.add_daemon_heartbeat(DaemonHeartbeat(datetime.now(UTC).timestamp(), "SENSOR", "me"))
    assert ticks["daily_scoring_schedule"].next == datetime(2026, 6, 30, 2, tzinfo=UTC)
    assert ticks["nightly_progress_stats"].kind == "schedule"
    assert all(tick.on for tick in ticks.values())
    assert ticks["progress_stats_refresh"] == Tick(
        "progress_stats_refresh", "sensor", True, "30 s", None, None, "", ""
    )
    assert read_instance(instance_url, ticks=False).daemon_works


def test_a_killed_run_is_not_shown_as_running(instance_url: str):
    with open_instance() as instance, psycopg.connect(instance_url, autocommit=True) as conn:
        run = create_run(instance, CODE_LOCATION, "refresh_progress_stats", {}, {})
        run_at_work(conn)
        conn.execute("delete from backfill.batches")
        conn.execute("update backfill.runs set run_id = %s", [run.run_id])
        assert [each["run_id"] for each in read_page(conn, instance_url, ticks=False).running] == [run.run_id]
        instance.report_run_failed(run)
        assert read_page(conn, instance_url, ticks=False).running == []


def test_a_sensor_turned_off_in_the_ui_has_no_next_tick(instance_url: str):
    import dagster as dg
    from dagster._core.definitions.run_request import InstigatorType
    from dagster._core.remote_origin import (
        InProcessCodeLocationOrigin,
        RemoteInstigatorOrigin,
        RemoteRepositoryOrigin,
    )
    from dagster._core.scheduler.instigation import InstigatorState, InstigatorStatus
    from dagster._core.types.loadable_target_origin import LoadableTargetOrigin

    location = InProcessCodeLocationOrigin(
        LoadableTargetOrigin(module_name="dagster_backfills.definitions"),
        location_name="dagster_backfills.definitions",
    )
    origin = RemoteInstigatorOrigin(RemoteRepositoryOrigin(location, "__repository__"), "automation")
    with dg.DagsterInstance.get() as instance:
        instance.add_instigator_state(
            InstigatorState(origin, InstigatorType.SENSOR, InstigatorStatus.STOPPED, None)
        )
        ticks = {tick.name: tick for tick in read_ticks(instance, datetime.now(UTC))}
    assert (ticks["automation"].on, ticks["automation"].next) == (False, None)
    assert ticks["kintell_events"].on


def test_the_page_is_shown_without_dagster(
    conn: psycopg.Connection, database_url: str, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("DATABASE_URL", database_url)
    monkeypatch.setenv("DAGSTER_POSTGRES_URL", "postgresql://me:hidden@127.0.0.1:1/none")
    page = read_page(conn, database_url)
    assert len(page.backfills) == 5
    assert "127.0.0.1" in page.dagster.problem
    assert "hidden" not in page.dagster.problem


def test_a_daemon_without_heartbeat_is_reported(conn: psycopg.Connection, database_url: str):
    page = read_page(conn, database_url, ticks=False)
    silent = StatusPage(**{**vars(page), "dagster": InstanceState(daemon_seconds=500, runs_queued=3)})
    assert remarks(silent) == [
        "The daemon sent its last heartbeat 8 min 20 s ago: nothing ticks, no queued run starts. "
        "Start it: backfills up",
        "Runs: 0 in progress, 3 queued.",
    ]


def test_json_has_everything_and_nothing_else_is_on_stdout(cli: Cli, conn: psycopg.Connection):
    run_at_work(conn)
    failure(conn, "u1")
    done = cli("status", "--json", "--no-ticks")
    assert done.returncode == 0, done.stderr
    page = json.loads(done.stdout)
    assert set(page) == {
        "at", "server", "backfills", "running", "held", "imports", "queue", "chain", "failures", "dagster",
    }  # fmt: skip
    assert page["running"][0]["time_left"] == 30.0
    assert page["failures"][0]["failures"] == 1


def watching(url: str, *options: str) -> Program:
    command = [SCRIPT, "status", "--watch", "--no-ticks", "--interval", "0.2", *options]
    return start_reading(command, env=os.environ | {"DATABASE_URL": url})


@pytest.mark.programs
def test_watch_in_a_pipe_prints_one_json_line_per_page_until_interrupted(
    conn: psycopg.Connection, database_url: str
):
    process = watching(database_url, "--json")
    assert json.loads(process.stdout.readline())["failures"] == []
    failure(conn, "u1")
    while not json.loads(process.stdout.readline())["failures"]:
        pass
    process.send_signal(signal.SIGINT)
    rest, output = process.communicate()
    assert process.returncode == 130
    assert output == "backfills: Interrupted.\n"
    assert all(json.loads(line) for line in rest.splitlines())


@pytest.mark.programs
def test_watch_survives_a_database_outage(conn: psycopg.Connection, database_url: str, server_url: str):
    name = conn.info.dbname
    process = watching(database_url, "--json")
    process.stdout.readline()
    with psycopg.connect(server_url, autocommit=True) as admin:
        admin.execute(f'alter database "{name}" allow_connections false')
        admin.execute("select pg_terminate_backend(pid) from pg_stat_activity where datname = %s", [name])
        assert "Retrying." in process.stderr.readline()
        admin.execute(f'alter database "{name}" allow_connections true')
    again = datetime.now(UTC).isoformat()
    while json.loads(process.stdout.readline())["at"] < again:
        pass
    process.send_signal(signal.SIGINT)
    process.communicate()
    assert process.returncode == 130


@pytest.mark.programs
def test_watch_keeps_the_embedded_server_that_it_started_until_it_ends(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("BACKFILLS_HOME", str(tmp_path))
    monkeypatch.delenv("DATABASE_URL", raising=False)
    server = EmbeddedServer(tmp_path)
    try:
        for command in ("migrate", "down"):
            assert run([SCRIPT, command]).returncode == 0
        process = watching("", "--json")
        for _ in range(2):
            assert json.loads(process.stdout.readline())["failures"] == []
        assert server.is_running()
        process.send_signal(signal.SIGINT)
        process.communicate()
        assert process.returncode == 130
        assert not server.is_running()
    finally:
        server.delete()


@pytest.mark.programs
def test_watch_on_a_terminal_uses_the_alternate_screen_until_ctrl_c(database_url: str):
    process, terminal = pty.fork()
    if process == 0:
        os.environ |= {"DATABASE_URL": database_url, "TERM": "xterm", "COLUMNS": "120", "LINES": "60"}
        os.execv(SCRIPT, [SCRIPT, "status", "--watch", "--no-ticks"])
    shown = b""
    while b"up to date" not in shown:
        shown += os.read(terminal, 65536)
    assert b"\x1b[?1049h" in shown
    os.write(terminal, b"\x03")
    with suppress(OSError):  # the terminal's other end is closed
        while chunk := os.read(terminal, 65536):
            shown += chunk
    assert os.waitstatus_to_exitcode(os.waitpid(process, 0)[1]) == 130
    assert b"\x1b[?1049l" in shown
    assert shown.endswith(b"backfills: Interrupted.\r\n")
    assert b"Traceback" not in shown


def test_the_next_tick_is_never_in_the_past(conn: psycopg.Connection, database_url: str) -> None:
    page = read_page(conn, database_url, ticks=False)
    overdue = page.at - timedelta(seconds=11)
    tick = Tick("kintell_inbox", "sensor", True, "15 s", overdue, overdue, "skipped", "")
    page = replace(page, dagster=replace(page.dagster, ticks=[tick]))
    (row,) = tables(page)["schedules and sensors"]
    assert (row["next tick"], row["last tick"]) == ("now", "11 s ago")
