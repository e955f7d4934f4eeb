"""The commands of `backfills queue`."""

import json
import subprocess
import time
from uuid import uuid4

import pytest

from dagster_backfills.domains.queue import queue
from dagster_backfills_tests.programs import SCRIPT, run

pytestmark = pytest.mark.programs


@pytest.fixture
def command(jobs_db, monkeypatch):
    monkeypatch.setenv("DATABASE_URL", jobs_db)

    def queued(*arguments, code=0, stdin=""):
        done = run([SCRIPT, "queue", *arguments], input=stdin, timeout=60)
        assert done.returncode == code, done.stderr
        return done

    return queued


def _job(db, job_id):
    return queue.rows(db, "one_job", job_id=job_id)[0]


def test_a_job_can_be_enqueued_with_every_option(command, db):
    arguments = ["--input", '{"audio_url": "file:///a.wav"}', "--priority", "2", "--unique-key", "k1"]
    arguments += ["--then", 'sop_generation={"title": "Fire"}', "--company-id", "org_1", "--max-retries", "7"]
    job_id = command("enqueue", "transcription", *arguments).stdout.strip()
    job = _job(db, job_id)
    assert (job["job_type"], job["priority"], job["unique_key"], job["company_id"], job["max_retries"]) == (
        "transcription", 2, "k1", "org_1", 7
    )  # fmt: skip
    assert job["then_steps"] == [{"job_type": "sop_generation", "input_data": {"title": "Fire"}}]
    assert command("enqueue", "transcription", *arguments).stdout.strip() == job_id


@pytest.mark.parametrize(
    ("arguments", "output"),
    [
        (["nope"], "Unknown job type: nope. Known: mux_upload, sop_generation, transcription."),
        (["transcription"], "field audio_url: field required"),
        (["transcription", "--input", "{"], "--input is not JSON"),
        (["transcription", "--input", '{"audio_url": NaN}'], "NaN is not a JSON number"),
        (["transcription", "--input", "[" * 100_000], "--input is not JSON"),
        (["transcription", "--input", "@/nowhere.json"], "--input names /nowhere.json, which can't be read"),
        (["transcription", "--input", "@/bin/sh"], "--input is not JSON"),
        (["transcription", "--input", "[1]"], "--input must be a JSON object"),
        (
            ["transcription", "--input", '{"audio_url": "x"}', "--then", "sop_generation"],
            "field title is required",
        ),
        (["transcription", "--input", '{"audio_url": "x"}', "--priority", "11"], "priority"),
    ],
)
def test_invalid_arguments_give_one_clear_error_and_enqueue_nothing(command, db, arguments, output):
    done = command("enqueue", *arguments, code=2)
    assert output in done.stderr and "Traceback" not in done.stderr
    assert db.execute("select count(*) from jobs.background_jobs").fetchone() == (0,)


def test_list_and_show_display_the_outcome_of_a_job(command, db, registry):
    job_id = queue.enqueue(db, "noop", {"a": 1}, registry=registry)
    queue.fail(db, queue.claim(db, "w", 1)[0], "network", "the line is dead", "", False)
    queue.enqueue(db, "echo", registry=registry)
    [row] = json.loads(command("list", "--status", "failed", "--json").stdout)
    assert (row["id"], row["last_error"]) == (str(job_id), "the line is dead")
    assert "the line is dead" in command("list", "--type", "noop").stdout
    shown = json.loads(command("show", str(job_id), "--json").stdout)
    assert shown["input_data"] == {"a": 1} and shown["error_data"][0]["kind"] == "network"
    assert "the line is dead" in command("show", str(job_id)).stdout
    assert "is not a job ID" in command("show", "the newest", code=2).stderr
    assert json.loads(command("show", str(job_id)[:13], "--json").stdout) == shown
    assert "There is no job" in command("show", "00000000-0000-0000-0000-000000000000", code=2).stderr
    assert "no status 'gone'" in command("list", "--status", "gone", code=2).stderr


def test_cancel_and_retry(command, db, registry):
    waits, failed = (queue.enqueue(db, "noop", priority=p, registry=registry) for p in (5, 1))
    queue.fail(db, queue.claim(db, "w", 1)[0], "x", "x", "", False)
    assert "cancelled (it was pending)" in command("cancel", str(waits), "--reason", "no use").stderr
    assert "it is already cancelled" in command("cancel", str(waits), code=1).stderr
    assert _job(db, waits)["progress_message"] == "no use"
    assert "Specify which failed jobs" in command("retry", code=2).stderr
    assert "1 jobs queued again" in command("retry", str(failed)).stderr
    assert _job(db, failed)["status"] == "pending"
    queue.fail(db, queue.claim(db, "w", 1)[0], "x", "x", "", False)
    assert "Input is not a terminal" in command("retry", "--type", "noop", code=2).stderr
    assert "1 jobs queued again" in command("retry", "--type", "noop", "--yes").stderr
    assert "No job of type echo has failed" in command("retry", "--type", "echo").stderr


@pytest.mark.parametrize("arguments", [["retry", "--type"], ["list", "--type"], ["enqueue"]])
def test_an_unknown_type_is_an_error_that_suggests_similar_names(command, db, arguments):
    output = command(*arguments, "mux_uplod", code=2).stderr
    assert "mux_uplod" in output and "Did you mean mux_upload? Known: " in output


def test_types_without_a_handler_in_this_environment_are_named_with_the_consequence(command):
    done = command("types")
    assert "This environment has no handler for crash, deaf, " in done.stderr
    assert "workers that run in it fail such jobs" in done.stderr and "QUEUE_HANDLERS" in done.stderr
    handlers = {row["type"]: row["handler"] for row in json.loads(command("types", "--json").stdout)}
    assert handlers["crash"] is None and handlers["mux_upload"].endswith("handlers.upload_to_mux")


def test_failed_jobs_of_an_unregistered_type_can_be_listed_and_retried(command, db, registry):
    queue.enqueue(db, "noop", registry=registry)
    queue.fail(db, queue.claim(db, "w", 1)[0], "x", "the line is dead", "", False)
    db.execute("delete from jobs.job_types where job_type = 'noop'")
    assert "the line is dead" in command("list", "--type", "noop").stdout
    assert "1 jobs queued again" in command("retry", "--type", "noop", "--yes").stderr


def test_values_that_python_can_not_represent_are_shown_as_postgres_prints_them(command, db, registry):
    new = "insert into jobs.background_jobs (job_type, run_after, created_at, input_data) values ('noop', %s, %s, %s)"
    big = '{"n": 1' + "0" * 5000 + "}"
    db.execute(new, ["infinity", "-infinity", "{}"])
    db.execute(new, ["0044-03-15 12:00+00 BC", "12026-01-01 00:00+00", big])
    listed = command("list").stdout
    assert "-infinity" in listed and "12026-01-01 00:00:00+00" in listed
    shown = [
        json.loads(command("show", row["id"], "--json").stdout)
        for row in json.loads(command("list", "--json").stdout)
    ]
    assert {row["run_after"] for row in shown} == {"infinity", "0044-03-15 12:00:00+00 BC"}
    assert big in [row["input_data"] for row in shown]
    for row in shown:
        assert row["run_after"] in command("show", row["id"]).stdout


def test_clean_up_asks_first_and_removes_what_ended_long_ago(command, db, registry):
    queue.enqueue_many(db, "noop", [{}] * 3, registry=registry)
    queue.complete(db, [(j, None) for j in queue.claim(db, "w", 2)])
    db.execute(
        "update jobs.background_jobs set completed_at = now() - interval '40 days' where completed_at > 'epoch'"
    )
    assert "finished more than 30 days ago? Input is not a terminal" in command("clean-up", code=2).stderr
    db.execute("update jobs.queue_settings set keep_finished = interval '36 hours'")
    assert "finished more than 1.5 days ago? " in command("clean-up", code=2).stderr
    assert "0 jobs removed" in command("clean-up", "--days", "50", "--yes").stderr
    assert "2 jobs removed" in command("clean-up", "--yes").stderr


def test_watch_prints_every_change_until_no_job_is_active(jobs_db, db, registry, monkeypatch):
    monkeypatch.setenv("DATABASE_URL", jobs_db)
    job_id = queue.enqueue(db, "noop", registry=registry)
    command = [SCRIPT, "queue", "watch", "--until-done"]
    watching = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    listening = (
        "select count(*) from pg_stat_activity where application_name = 'backfills' and query like '%jobs%'"
    )
    for _ in range(1200):
        if db.execute(listening).fetchone() != (0,):
            break
        time.sleep(0.05)
    job = queue.claim(db, "w", 1)[0]
    queue.report_progress(db, job, 30, "working")
    forged = [
        f'{{"id": "{job_id}", "status": "failed"}}',
        f'{{"id": "{uuid4()}"}}',
        "garbage",
        "[]",
        "{",
        '{"id": 7}',
    ]
    for payload in forged:
        db.execute("select pg_notify('jobs_changed', %s)", [payload])
    assert watching.stdout is not None
    lines = iter(watching.stdout.readline, "")
    expected = {"id": str(job_id), "status": "processing", "progress": 30, "message": "working"}
    changes = []
    while expected not in changes:
        changes.append(json.loads(next(lines)))
    queue.complete(db, [(job, None)])
    changes += [json.loads(line) for line in lines]
    assert watching.wait(60) == 0
    assert changes[-1] == {**expected, "status": "completed", "progress": 100}
    assert {change["status"] for change in changes if "id" in change} <= {
        "pending",
        "processing",
        "completed",
    }
    assert {change["id"] for change in changes if "id" in change} == {str(job_id)}


def test_the_live_table_shows_every_active_job(db, registry):
    from rich.console import Console

    from dagster_backfills.cli.queue.watch import table

    queue.enqueue_many(db, "noop", [{}] * 2, registry=registry)
    queue.report_progress(db, queue.claim(db, "w", 1)[0], 40, "at [it]")
    console = Console(width=160)
    with console.capture() as captured:
        console.print(table(queue.rows(db, "active_jobs", max_rows=10), queue.rows(db, "metrics"), 160))
    shown = captured.get()
    assert "processing" in shown and "pending" in shown and "at [it]" in shown
    assert "1 waiting, 0 scheduled" in shown


def test_the_live_table_has_whole_ids_and_rows_of_one_line_at_80_columns(db, registry):
    from rich.console import Console

    from dagster_backfills.cli.queue.watch import table

    jobs = [str(queue.enqueue(db, "noop", {}, registry=registry)) for _ in range(2)]
    queue.report_progress(db, queue.claim(db, "w", 1)[0], 40, "a message that is longer than its column")
    console = Console(width=80)
    with console.capture() as captured:
        console.print(table(queue.rows(db, "active_jobs", max_rows=10), queue.rows(db, "metrics"), 80))
    for job in jobs:
        (line,) = [line for line in captured.get().splitlines() if job in line]
        assert "noop" in line and ("40%" in line or "pending" in line)
