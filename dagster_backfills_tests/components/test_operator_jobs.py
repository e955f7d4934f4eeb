"""The jobs `control_NAME` and `undo_NAME` of declared backfills, in any project and on any database."""

import dagster as dg
import psycopg
import pytest

from dagster_backfills.components.postgres_backfill import definitions_of
from dagster_backfills_tests.components.adopting import EXAMPLES, load, query
from dagster_backfills_tests.components.applications import GYM, MONTHS

ALPHA = "a0000000-0000-0000-0000-000000000000"
MONTHS_TABLE, COPY = "attendance.member_months", "attendance.copies"
COUNT = "select count(*) from {}"


@pytest.fixture
def application(make_database, monkeypatch):
    """A gym's database, other than DATABASE_URL's."""
    url = make_database()
    monkeypatch.setenv("REPORTING_URL", url)
    with psycopg.connect(url, autocommit=True) as conn:
        conn.execute(GYM + MONTHS)
        conn.execute(f"create table {COPY} (like {MONTHS_TABLE} including all)")
        yield conn


@pytest.fixture
def repository(application):
    """Two backfills of the same months, each into its own table."""
    common = {
        "partitions": {"static": [ALPHA]},
        "database": "REPORTING_URL",
        "schedule": None,
        "stale_when": {},
    }
    months = load(EXAMPLES / "member_months", **common)
    table = {"table": COPY, "query": "member_months", "unit": "member_id", "partition_column": "gym_id"}
    copies = load(EXAMPLES / "member_months", **common, name="copies", tables=[table], checks={})
    return dg.Definitions.merge(definitions_of(months), definitions_of(copies)).get_repository_def()


@pytest.fixture
def execute(repository):
    with dg.DagsterInstance.ephemeral() as instance:

        def run(job, **config):
            return repository.get_job(job).execute_in_process(
                run_config=config, instance=instance, raise_on_error=False
            )

        yield run


def message(result):
    (failed,) = [event for event in result.all_events if event.is_step_failure]
    return failed.step_failure_data.user_failure_data.description


def test_controls_are_set_in_the_backfills_own_database(application, execute, conn):
    assert execute("control_member_months", paused=True).success
    controls = "select backfill, paused from backfill.controls"
    assert query(application, controls) == [("member_months", True)]
    assert query(conn, controls) == []


def test_an_invalid_control_fails_the_run_and_says_why(execute, application):
    assert "time zone 'Atlantis'" in message(execute("control_copies", window="22:00-05:00", zone="Atlantis"))
    assert query(application, "select * from backfill.controls") == []


def test_a_run_is_undone_in_the_backfills_own_database_unless_it_is_a_dry_run(application, execute):
    assert execute("refresh_member_months", which="all").success
    before = query(application, COUNT.format(MONTHS_TABLE))
    assert before != [0]
    assert execute("undo_member_months").success
    assert query(application, COUNT.format(MONTHS_TABLE)) == before
    assert execute("undo_member_months", dry_run=False).success
    assert query(application, COUNT.format(MONTHS_TABLE)) == [0]


def test_a_run_over_several_backfills_is_undone_only_in_the_jobs_own_tables(application, execute, repository):
    keys = [dg.AssetKey(table.split(".")) for table in (MONTHS_TABLE, COPY)]
    with dg.DagsterInstance.ephemeral() as instance:
        both = repository.get_implicit_job_def_for_assets(keys)
        run = both.execute_in_process(instance=instance, partition_key=ALPHA)
    assert execute("undo_copies", run=run.run_id, dry_run=False).success
    assert query(application, COUNT.format(COPY)) == [0]
    assert query(application, COUNT.format(MONTHS_TABLE)) != [0]


def test_a_run_of_another_backfill_is_refused(application, execute):
    other = execute("refresh_member_months", which="all")
    refused = execute("undo_copies", run=other.run_id, dry_run=False)
    assert f"Run {other.run_id} has not written any table of copies." in message(refused)
    assert query(application, COUNT.format(MONTHS_TABLE)) != [0]
