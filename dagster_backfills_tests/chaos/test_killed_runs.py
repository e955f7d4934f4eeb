"""Whole Dagster runs killed at random moments: after the next run, the tables are those of an undisturbed run.

Each run is a process of `dagster job execute`. `make chaos` runs it.
"""

import json
import os
import random
import subprocess
import sys
import time
from contextlib import suppress

import psutil
import psycopg
import pytest

from dagster_backfills.samples.progress import load_progress
from dagster_backfills.samples.progress_rows import ProgressSize
from dagster_backfills_tests.chaos import domains
from dagster_backfills_tests.chaos.stack import ROOT, environment

KILLS = 30
SIZE = ProgressSize(schools=2, cohorts=30, users=900, progress=9_000, questions=30)
# Rows are slow, so that the kill hits work in progress; a run has about three seconds of work.
SLOW = """
    create function slow() returns trigger language plpgsql as
    $$ begin perform pg_sleep(0.003); return new; end $$;
    create trigger slow before insert or update on progress.user_progress_stats
    for each row execute function slow();
"""
DISTURB = """
    truncate progress.cohort_stats;
    delete from progress.user_progress_stats where hashtext(user_id) % 3 = 0;
    update progress.user_progress_stats set questions_interacted = questions_interacted + 1
    where hashtext(user_id) % 3 = 1;
    truncate backfill.stale_marks;
"""
pytestmark = [pytest.mark.chaos, pytest.mark.timeout(3600)]


class Executor:
    """Starts whole runs one after another, and kills them."""

    def __init__(self, env, arguments):
        command = [sys.executable, "-m", "dagster_backfills_tests.chaos.executor"]
        self.process = subprocess.Popen(
            command, env=env, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        self.arguments = json.dumps(arguments)
        assert self.process.stdout.readline() == "ready\n"

    def start(self):
        self.process.stdin.write(self.arguments + "\n")
        self.process.stdin.flush()
        self.pid = int(self.process.stdout.readline())

    def is_over(self):
        return psutil.pid_exists(self.pid) is False

    def kill(self):
        with suppress(ProcessLookupError):
            os.killpg(self.pid, 9)

    def code(self):
        """Waits for the run's end. Returns its exit code: 0, or -9 if it was killed."""
        return int(self.process.stdout.readline())


@pytest.fixture
def executor(database_url, tmp_path):
    home = tmp_path / "home"
    home.mkdir()
    (home / "dagster.yaml").write_text((ROOT / "dagster.yaml").read_text())
    config = tmp_path / "config.yaml"
    config.write_text("which: all\n")
    with psycopg.connect(database_url, autocommit=True) as conn:
        conn.execute("create schema dagster")
    arguments = ["job", "execute", "-m", "dagster_backfills.definitions", "-j", "refresh_progress_stats"]
    made = Executor(environment(database_url, home), [*arguments, "-c", str(config)])
    yield made
    made.process.stdin.close()
    made.process.wait()


def undisturbed(conn):
    return domains.progress(conn, None, domains.Expected(days=[], scores={}))


def test_runs_killed_at_thirty_moments_end_like_undisturbed_ones(database_url, conn, executor):
    rng, kills, early, moments = random.Random(20240229), 0, 0, set()
    load_progress(conn, SIZE, seed=5)
    conn.execute(SLOW)
    conn.execute(DISTURB)
    while True:
        [before] = conn.execute("select count(*) from backfill.runs").fetchone()
        executor.start()
        if kills < KILLS:
            if rng.random() < 0.8:  # most are killed while they write, some while they start
                begun = "select count(*) > %s from backfill.runs"
                while not executor.is_over() and conn.execute(begun, [before]).fetchone() == (False,):
                    time.sleep(0.02)
                time.sleep(rng.uniform(0, 2.5))
            else:
                early += 1
                time.sleep(rng.uniform(0.1, 1))
            executor.kill()
        code = executor.code()
        if code:
            assert code == -9
            kills += 1
            moments.add(conn.execute("select count(*) from backfill.batches").fetchone()[0])
            if kills % 6:
                continue
            executor.start()
            assert executor.code() == 0
        assert undisturbed(conn) == []
        if kills >= KILLS:
            break
        conn.execute(DISTURB)
    assert len(moments) > 5, "all were killed at the same stage, so that little was shown"
    sys.stdout.write(f"{kills} runs killed, {early} of them while they started; {len(moments)} stages\n")
