"""Custom job types in modules listed in QUEUE_HANDLERS: they work like the built-in ones."""

import json

import dagster as dg
import psycopg
import pytest

from dagster_backfills.dagster.resource import PostgresResource
from dagster_backfills.defs.queue.jobs import drain_background_jobs
from dagster_backfills.domains.queue import queue
from dagster_backfills.domains.queue.errors import InvalidJobInput, UnknownJobType
from dagster_backfills.domains.queue.queue import Step
from dagster_backfills.domains.queue.registry import background_job_types
from dagster_backfills.domains.queue.worker import Worker
from dagster_backfills_tests.domains.queue.test_worker import QUICK
from dagster_backfills_tests.programs import SCRIPT, run

HERE = "dagster_backfills_tests.domains.queue.own"
OWN, BROKEN = f"{HERE}.invoices", f"{HERE}.broken"
THREE = {"transcription", "sop_generation", "mux_upload"}


@pytest.fixture
def own(jobs_db, db, monkeypatch):
    """QUEUE_HANDLERS is set, and the types are registered in the database."""
    monkeypatch.setenv("QUEUE_HANDLERS", f" {OWN} , {BROKEN}")
    monkeypatch.setenv("DATABASE_URL", jobs_db)
    for kind in background_job_types():
        queue.register(db, kind)
    return jobs_db


def _row(db, job_id):
    return queue.rows(db, "one_job", job_id=job_id)[0]


def _command(*arguments, code=0):
    done = run([SCRIPT, "queue", *arguments], timeout=120)
    assert done.returncode == code, done.stderr
    return done


def test_the_setting_adds_types_to_the_three_and_a_broken_module_takes_nothing_down(own):
    registry = background_job_types()
    assert {kind.name for kind in registry} == {*THREE, "make_invoice", "write_letter"}
    assert list(registry.problems) == [BROKEN]
    assert registry.problems[BROKEN] == (
        f"The module {BROKEN} in QUEUE_HANDLERS can't be loaded: "
        "ModuleNotFoundError: No module named 'a_package_that_is_not_there'."
    )


@pytest.mark.parametrize(
    ("module", "message"),
    [
        (
            f"{HERE}.clash",
            "its job type mux_upload is already defined in dagster_backfills.domains.queue.handlers",
        ),
        (HERE, "it has no function decorated with @job_type"),
        ("nowhere.at_all", "No module named 'nowhere'"),
        ("not a name", "No module named 'not a name'"),
    ],
)
def test_an_invalid_module_is_one_clear_problem(module, message):
    registry = background_job_types({"QUEUE_HANDLERS": f"{module},{OWN}"})
    assert message in registry.problems[module]
    assert {kind.name for kind in registry} == {*THREE, "make_invoice", "write_letter"}


@pytest.mark.programs
def test_a_chain_of_custom_types_runs_in_a_process_and_a_thread(own, db):
    given = {"customer": "Acme", "lines": [100, 250]}
    first = queue.enqueue(db, "make_invoice", given, then=[Step("write_letter", {})])
    Worker(own, background_job_types(), QUICK).run()
    assert (_row(db, first)["output_data"], _row(db, first)["max_retries"]) == (
        {"customer": "Acme", "total": 350},
        5,
    )
    row = db.execute("select output_data from jobs.background_jobs where parent_id = %s", [first]).fetchone()
    assert row == ({"text": "Dear Acme, you owe 350."},)


def test_python_and_sql_reject_the_same_inputs_of_a_custom_type(own, db):
    for given, message in [
        ({"customer": "A"}, "field lines"),
        ({"customer": 1, "lines": [1]}, "field customer"),
    ]:
        with pytest.raises(InvalidJobInput, match=f"make_invoice: {message}"):
            queue.enqueue(db, "make_invoice", given)
        with pytest.raises(psycopg.errors.InvalidParameterValue, match=f"make_invoice: {message}"):
            db.execute("select jobs.enqueue_background_job('make_invoice', %s)", [json.dumps(given)])
    message = r"make_invoice \(a step of write_letter\): field lines is required"
    with pytest.raises(InvalidJobInput, match=message):
        queue.enqueue(db, "write_letter", {"customer": "A", "total": 1}, then=[Step("make_invoice", {})])


def test_a_job_whose_module_can_not_be_imported_is_retried_and_says_why(own, db):
    db.execute("insert into jobs.job_types (job_type) values ('of_the_broken')")
    db.execute("update jobs.queue_settings set retry_base = '1 hour'")
    row = db.execute("select jobs.enqueue_background_job('of_the_broken')").fetchone()
    Worker(own, background_job_types(), QUICK).run()
    job = _row(db, row[0])
    assert (job["status"], job["error_data"][0]["kind"]) == ("pending", "unknown_type")
    assert "No module named 'a_package_that_is_not_there'" in job["error_data"][0]["message"]
    with pytest.raises(UnknownJobType, match="a_package_that_is_not_there"):
        queue.enqueue(db, "of_the_broken")


@pytest.mark.programs
def test_a_run_processes_custom_types_shows_their_results_and_logs_problems(own, db):
    queue.enqueue(db, "make_invoice", {"customer": "Acme", "lines": [1]})
    queue.enqueue(db, "write_letter", {"customer": "Acme", "total": 1})
    config = {"idle_seconds": 1}
    with dg.DagsterInstance.ephemeral() as instance:
        result = drain_background_jobs.execute_in_process(
            run_config=config, instance=instance, resources={"postgres": PostgresResource(url=own)}
        )
        logged = [e.user_message for e in instance.all_logs(result.run_id)]
    [observation] = [e for e in result.all_events if e.event_type_value == "ASSET_OBSERVATION"]
    metadata = observation.event_specific_data.asset_observation.metadata
    assert (metadata["job_type"].value, metadata["total"].value) == ("make_invoice", 1)
    assert any(f"The module {BROKEN} in QUEUE_HANDLERS can't be loaded" in line for line in logged)


@pytest.mark.programs
def test_the_command_lists_types_with_their_fields_and_registers_them(jobs_db, db, monkeypatch):
    monkeypatch.setenv("DATABASE_URL", jobs_db)
    monkeypatch.setenv("QUEUE_HANDLERS", OWN)
    before = {line["type"]: line for line in json.loads(_command("types", "--json").stdout)}
    assert before["make_invoice"] == {
        "type": "make_invoice", "fields": "customer: string, lines: array, note?: string", "retries": 5,
        "runs in": "process", "handler": f"{OWN}.make_invoice", "database": "not registered",
    }  # fmt: skip
    assert before["noop"]["handler"] is None and before["transcription"]["database"] == "registered"
    refused = _command("enqueue", "make_invoice", "--input", '{"customer": "A", "lines": [1]}', code=2).stderr
    assert "backfills queue types --register" in refused
    after = _command("types", "--register").stdout
    assert "make_invoice" in after and "not registered" not in after
    _command("enqueue", "make_invoice", "--input", '{"customer": "A", "lines": [1]}')
    monkeypatch.setenv("QUEUE_HANDLERS", BROKEN)
    assert "a_package_that_is_not_there" in _command("types", code=1).stderr
