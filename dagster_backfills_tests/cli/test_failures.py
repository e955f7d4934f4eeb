"""`backfills failures` with known and unknown names."""

import json

from dagster_backfills.domains.queue import queue
from dagster_backfills_tests.cli.conftest import Cli

FAILED = """
    insert into backfill.failures (run_id, asset, partition, unit, error_class, sqlstate, message)
    values ('r', %s, 'p', 'u', 'data', '22000', %s)
"""


def test_an_unknown_backfill_is_refused_with_the_closest_match(cli: Cli):
    for command in (["failures"], ["status"], ["plan"], ["run"], ["pause"]):
        done = cli(*command, "progress_stat_s")
        assert (done.returncode, done.stdout) == (2, "")
        assert "There is no backfill 'progress_stat_s'. Did you mean progress_stats?" in done.stderr


def test_a_backfill_without_failures_is_found_by_a_prefix_of_its_name(cli: Cli):
    done = cli("failures", "train")
    assert (done.returncode, done.stderr) == (0, "training_completions has no failures.\n")


def test_failures_are_listed_newest_first_up_to_the_limit(cli: Cli, conn):
    for number in range(3):
        conn.execute(FAILED, [f"gym/visits{number}", "postgresql://me:hidden@host/ is away"])
    conn.execute(FAILED, ["progress/cohort_stats", "no"])
    listed = cli("failures")
    assert [line.split("\t")[5] for line in listed.stdout.splitlines()[1:]] == [
        "progress/cohort_stats", "gym/visits2", "gym/visits1", "gym/visits0"
    ]  # fmt: skip
    assert "me:***@host" in listed.stdout and "hidden" not in listed.stdout
    assert len(json.loads(cli("failures", "--limit", "2", "--json").stdout)) == 2
    assert [each["asset"] for each in json.loads(cli("failures", "progress", "--json").stdout)] == [
        "progress/cohort_stats"
    ]


def test_failures_of_imports_and_jobs_are_listed_from_their_own_tables(cli: Cli, conn):
    job = "select jobs.enqueue_background_job('transcription', %s)"
    (job_id,) = conn.execute(job, ['{"audio_url": "https://a.test/b"}']).fetchone()
    queue.fail(conn, queue.claim(conn, "w", 1)[0], "x", "no sound", "", False)
    failed = cli("failures", "queue")
    assert failed.stdout.splitlines()[1].split("\t")[:3] == [str(job_id), "transcription", "no sound"]
    assert "backfills queue retry ID" in failed.stderr
    assert cli("failures", "kintell").stderr == "kintell has no failures.\n"
