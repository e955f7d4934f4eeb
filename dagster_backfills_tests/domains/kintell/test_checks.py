"""Each check passes after an import and fails when its rule is broken."""

import dagster as dg
import pytest

from dagster_backfills.dagster.resource import PostgresResource
from dagster_backfills.defs.kintell.assets import event_stream
from dagster_backfills.defs.kintell.checks import kintell_checks
from dagster_backfills.defs.kintell.resources import KintellSettings
from dagster_backfills.domains.kintell.file.register import register
from dagster_backfills.domains.kintell.importing.importer import Options, run_import
from dagster_backfills_tests.domains.kintell.sample import add_users, mixed_rows, write_csv


@pytest.fixture
def job(conn, database_url, tmp_path):
    add_users(conn)
    made = register(conn, str(write_csv(tmp_path / "a.csv", mixed_rows(60))), [str(tmp_path)]).job
    return run_import(database_url, made, Options(batch_rows=25), [str(tmp_path)])


@pytest.fixture
def check(job, database_url):
    """The results of all checks, by name."""

    def run(nats="nats://127.0.0.1:1"):
        definitions = dg.Definitions(
            asset_checks=[kintell_checks],
            jobs=[dg.define_asset_job("checks", dg.AssetSelection.all_asset_checks())],
            resources={
                "postgres": PostgresResource(url=database_url),
                "kintell": KintellSettings(nats_url=nats),
            },
            executor=dg.in_process_executor,
        )
        result = definitions.resolve_job_def("checks").execute_in_process()
        return {each.check_name: each for each in result.get_asset_check_evaluations()}

    return run


def test_all_checks_pass_after_an_import(check):
    assert {name: result.passed for name, result in check().items()} == {
        "imports_add_up": True,
        "no_dead_imports": True,
        "events_leave": True,
    }


@pytest.mark.parametrize(
    "breach",
    [
        "delete from kintell.backfill_row_errors where row_number = 10",
        "update kintell.backfill_job_batches set inserted_rows = inserted_rows - 1 where first_row = 1",
    ],
)
def test_counters_that_do_not_match_the_rows_fail_the_check(check, conn, job, breach):
    conn.execute(breach)
    result = check()["imports_add_up"]
    assert not result.passed
    assert result.severity == dg.AssetCheckSeverity.ERROR
    assert str(job.id) in str(result.metadata)


def test_a_dead_worker_fails_the_check(check, conn, job):
    conn.execute(
        "update kintell.backfill_jobs set activity = 'replay', heartbeat_at = clock_timestamp() - interval '2 minutes'"
    )
    result = check()["no_dead_imports"]
    assert not result.passed
    assert str(job.id) in str(result.metadata)
    conn.execute("update kintell.backfill_jobs set heartbeat_at = clock_timestamp()")
    assert check()["no_dead_imports"].passed


def test_events_that_wait_too_long_are_a_warning_if_nats_is_configured(check, conn):
    conn.execute("update kintell.event_outbox set created_at = now() - interval '11 minutes'")
    result = check()["events_leave"]
    assert not result.passed
    assert result.severity == dg.AssetCheckSeverity.WARN
    assert check(nats="")["events_leave"].passed
    conn.execute("update kintell.event_outbox set published_at = now()")
    assert check()["events_leave"].passed


def test_the_stream_reports_waiting_events_the_last_publication_and_the_last_error(database_url, conn, job):
    (waiting,) = conn.execute("select count(*) from kintell.event_outbox").fetchone()
    conn.execute("update kintell.event_publisher set last_published_at = now(), last_error = 'no servers'")
    definitions = dg.Definitions(
        assets=[event_stream],
        jobs=[dg.define_asset_job("look", dg.AssetSelection.assets(*event_stream.keys))],
        resources={"postgres": PostgresResource(url=database_url)},
    )
    observed = definitions.resolve_job_def("look").execute_in_process()
    [seen] = observed.asset_observations_for_node("event_stream")
    assert waiting and seen.metadata["events_waiting"].value == waiting
    assert seen.metadata["last_error"].value == "no servers"
    assert "dagster/last_updated_timestamp" in seen.metadata
