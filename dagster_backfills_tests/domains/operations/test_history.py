"""The run history: copied completely, kept, counted by job and day, and shown in the daily report."""

from datetime import UTC, date, datetime, timedelta

import dagster as dg
import psycopg
import pytest

from dagster_backfills.dagster.cause import cause_of, started_by
from dagster_backfills.dagster.resource import PostgresResource
from dagster_backfills.defs.operations.assets import job_runs
from dagster_backfills.defs.operations.history import copy_runs, delete_runs, job_of
from dagster_backfills.defs.operations.reporting import report
from dagster_backfills.domains.operations.settings import retention
from dagster_backfills.errors import UserError
from dagster_backfills_tests.domains.operations.conftest import Location, working_job

DAY = date(2026, 6, 30)


def outcomes(conn: psycopg.Connection) -> dict[str, str]:
    return dict(conn.execute("select run_id, outcome from operations.job_runs").fetchall())


def test_runs_are_copied_once_and_followed_to_their_end(location: Location, conn: psycopg.Connection) -> None:
    instance = location.instance
    good, bad = (
        location.run(),
        location.run(fail="no", **{"dagster/sensor_name": "s", "dagster/partition": "p"}),
    )
    queued = instance.create_run_for_job(working_job)
    assert copy_runs(conn, instance, page=2) == 3
    assert outcomes(conn) == {good: "succeeded", bad: "failed", queued.run_id: "queued"}
    assert copy_runs(conn, instance, page=2) == 0
    instance.report_run_canceled(queued)
    assert copy_runs(conn, instance, page=2) == 1
    assert outcomes(conn)[queued.run_id] == "cancelled"
    row = conn.execute(
        "select job, started_by, partitions, started_at <= ended_at from operations.job_runs where run_id = %s",
        [bad],
    ).fetchone()
    assert row == ("working_job", "sensor s", "p", True)


def test_the_account_of_a_killed_run_is_closed_and_that_of_an_active_one_stays_open(
    location: Location, conn: psycopg.Connection
) -> None:
    killed, active = location.run(fail="no"), location.instance.create_run_for_job(working_job).run_id
    for run in (killed, active):
        conn.execute(
            "insert into backfill.runs (run_id, root_run_id, assets, partitions) values (%s, %s, '{a}', 1)",
            [run, run],
        )
    copy_runs(conn, location.instance)
    accounts = "select run_id, outcome, finished_at >= started_at from backfill.runs"
    assert sorted(conn.execute(accounts).fetchall()) == sorted(
        [(killed, "interrupted", True), (active, "running", None)]
    )


def test_runs_deleted_from_dagster_are_kept(location: Location, conn: psycopg.Connection) -> None:
    run = location.run()
    copy_runs(conn, location.instance)
    location.instance.delete_run(run)
    copy_runs(conn, location.instance)
    assert outcomes(conn) == {run: "succeeded"}


def test_runs_are_deleted_after_two_years_or_the_configured_time(
    location: Location, conn: psycopg.Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    old, older = location.run(), location.run(fail="no")
    copy_runs(conn, location.instance)
    for run, days in ((old, 729), (older, 731)):
        # Deleted in Dagster as well, otherwise it would be copied again.
        location.instance.delete_run(run)
        conn.execute(
            "update operations.job_runs set seen_at = now() - make_interval(days => %s) where run_id = %s",
            [days, run],
        )
    conn.commit()
    assert delete_runs(conn, 0) == 0 and outcomes(conn) == {old: "succeeded", older: "failed"}
    resources = {"postgres": PostgresResource(url=location.url)}
    result = dg.materialize([job_runs], instance=location.instance, resources=resources)
    (event,) = result.get_asset_materialization_events()
    assert event.materialization.metadata["rows_removed"].value == 1
    assert set(outcomes(conn)) == {old, result.run_id}
    monkeypatch.setenv("JOB_HISTORY_KEEP_DAYS", "700")
    dg.materialize([job_runs], instance=location.instance, resources=resources)
    assert old not in outcomes(conn)


def test_how_long_runs_are_kept_is_a_number_of_days() -> None:
    assert retention({}).job_history_keep_days == 730
    assert retention({"JOB_HISTORY_KEEP_DAYS": " 0 "}).job_history_keep_days == 0
    for wrong in ("two years", "-1", "1.5"):
        with pytest.raises(UserError, match="JOB_HISTORY_KEEP_DAYS is"):
            retention({"JOB_HISTORY_KEEP_DAYS": wrong})


def test_an_interrupted_copy_is_rolled_back(database_url: str, location: Location) -> None:
    runs = {location.run() for _ in range(3)}
    with psycopg.connect(database_url) as conn:
        conn.execute(
            "create function refuse() returns trigger language plpgsql as $$ begin"
            " if (select count(*) from operations.job_runs) >= 2 then raise 'cut'; end if; return null; end $$;"
            " create trigger refuse after insert on operations.job_runs execute function refuse()"
        )
        conn.commit()
        with pytest.raises(psycopg.errors.RaiseException):
            copy_runs(conn, location.instance, page=1)
        conn.rollback()
        assert outcomes(conn) == {}
        conn.execute("drop trigger refuse on operations.job_runs")
        conn.commit()
        copy_runs(conn, location.instance, page=1)
        assert set(outcomes(conn)) == runs


def add(conn: psycopg.Connection, job: str, outcome: str, minutes: float | None, day: date = DAY) -> None:
    ended = datetime(day.year, day.month, day.day, 12, tzinfo=UTC)
    started = None if minutes is None else ended - timedelta(minutes=minutes)
    conn.execute(
        "insert into operations.job_runs values"
        " (gen_random_uuid()::text, 'r', %s, 'person', null, %s, %s, %s, %s, now())",
        [job, outcome, (started or ended) - timedelta(seconds=30), started, ended],
    )


def test_days_count_outcomes_and_durations_by_job(conn: psycopg.Connection) -> None:
    for minutes in (1, 2, 9):
        add(conn, "a", "succeeded", minutes)
    add(conn, "a", "failed", 4)
    add(conn, "b", "cancelled", None)
    add(conn, "a", "succeeded", 1, DAY - timedelta(days=1))
    rows = conn.execute("select * from operations.job_days where day = %s order by job", [DAY]).fetchall()
    assert rows[0][:6] == (DAY, "a", 4, 3, 1, 0)
    assert rows[0][6] == 180
    assert rows[0][8:] == (540, 30)
    assert rows[1] == (DAY, "b", 1, 0, 0, 1, None, None, None, None)


def test_work_is_counted_by_day_and_asset_over_all_domains(conn: psycopg.Connection) -> None:
    _batches(conn)
    rows = conn.execute(
        "select domain, asset, runs, batches, units, rows_written, failures, busy_seconds"
        " from operations.backfill_days"
    ).fetchall()
    assert rows == [("progress", "progress/cohort_stats", 1, 2, 20, 14, 1, 1.0)]


def _batches(conn: psycopg.Connection) -> None:
    conn.execute(
        "insert into backfill.runs (run_id, root_run_id, assets, partitions)"
        " values ('r', 'r', '{progress/cohort_stats}', 2)"
    )
    for failures in (0, 1):
        conn.execute(
            "insert into backfill.batches (batch_id, asset, run_id, partitions, snapshot, units, rows_inserted,"
            " rows_updated, failures, seconds, committed_at) values (gen_random_uuid(), 'progress/cohort_stats', 'r',"
            " '{p}', pg_current_snapshot(), 10, 5, 2, %s, 0.5, %s)",
            [failures, datetime(2026, 6, 30, 1, tzinfo=UTC)],
        )


def test_the_report_has_figures_and_tables_of_the_period(conn: psycopg.Connection) -> None:
    add(conn, "a", "succeeded", 2)
    add(conn, "a", "failed", 4, DAY - timedelta(days=29))
    add(conn, "too old", "failed", 4, DAY - timedelta(days=30))
    add(conn, "too new", "failed", 4, DAY + timedelta(days=1))
    _batches(conn)
    entries = report(conn, DAY)
    assert (entries["runs"], entries["runs_failed"]) == (2, 1)
    assert (entries["runs_succeeded_last_day"], entries["runs_failed_last_day"]) == (1, 0)
    (job,) = [record.data for record in entries["jobs"].records]
    assert (job["job"], job["runs"], job["failed"], job["median_seconds"]) == ("a", 2, 1, 180.0)
    assert [record.data["rows_written"] for record in entries["written"].records] == [14]
    days = [record.data for record in entries["outcomes"].records]
    assert len(days) == 30
    assert days[0] == {"day": "2026-06-01", "succeeded": 0, "failed": 1, "cancelled": 0}
    assert days[-1] == {"day": "2026-06-30", "succeeded": 1, "failed": 0, "cancelled": 0}


def test_an_empty_history_gives_a_report_too(conn: psycopg.Connection) -> None:
    assert report(conn, DAY) == {
        "runs_succeeded_last_day": 0, "runs_failed_last_day": 0, "runs_cancelled_last_day": 0,
        "days": 30, "runs": 0, "runs_failed": 0,
    }  # fmt: skip


def test_the_asset_copies_and_reports(location: Location, conn: psycopg.Connection) -> None:
    bad = location.run(fail="no")
    result = dg.materialize(
        [job_runs], instance=location.instance, resources={"postgres": PostgresResource(url=location.url)}
    )
    (event,) = result.get_asset_materialization_events()
    metadata = event.materialization.metadata
    assert metadata["runs_failed_last_day"].value == 1
    assert {"jobs", "outcomes"} <= set(metadata)
    assert outcomes(conn)[bad] == "failed"
    failing = conn.execute("select distinct asset, job from operations.open_failures").fetchall()
    assert failing == [("progress/cohort_stats", "working_job")]


def test_a_runs_job_and_cause_are_read_from_it() -> None:
    selected = frozenset({dg.AssetKey(["progress", "cohort_stats"]), dg.AssetKey(["jobs", "x"])})
    assert job_of(dg.DagsterRun("__ASSET_JOB", asset_selection=selected)) == "materialize jobs, progress"
    assert job_of(dg.DagsterRun("a_job", asset_selection=selected)) == "a_job"
    assert cause_of({"dagster/backfill": "b1", "dagster/sensor_name": "s"}) == "backfill b1"
    assert cause_of({"dagster/schedule_name": "nightly"}) == "schedule nightly"
    assert cause_of({"backfills/launched_by": "command line"}) == "command line"
    assert cause_of({}) == "person"
    by_olga = {"dagster/user": "olga", "backfills/launched_by": "command line"}
    assert (cause_of(by_olga), started_by(by_olga)) == ("olga", "olga")
    of_a_backfill = {**by_olga, "dagster/backfill": "b1"}
    assert (cause_of(of_a_backfill), started_by(of_a_backfill)) == ("backfill b1", "olga")
    assert started_by({"dagster/schedule_name": "nightly"}) == "schedule nightly"
