"""Following a run: in a pipe, on a terminal, and during a database outage."""

import os
import pty
import subprocess
import sys

import psycopg
import pytest

from dagster_backfills.cli.follow import follow_run
from dagster_backfills.cli.kintell.runs import read_import
from dagster_backfills.domains.kintell.file.register import register
from dagster_backfills.domains.kintell.importing.importer import Options, run_import
from dagster_backfills_tests.domains.kintell.sample import add_users, mixed_rows, write_csv

BATCH = """
    insert into backfill.batches (batch_id, asset, run_id, step, partitions, snapshot, units, rows_inserted,
        seconds, failures)
    values (gen_random_uuid(), 'a/table', 'r', 's', array[%s], pg_current_snapshot(), 50, 49, 0.1, 1)
"""
FOLLOW = """
import sys
from dagster_backfills.cli.follow import follow_run
ends = iter([False, False, True])
follow_run(sys.argv[1], "r", lambda: next(ends), poll=0.1)
"""


@pytest.fixture
def run(conn: psycopg.Connection) -> psycopg.Connection:
    """A run over two partitions of 50 units each, one of which is done."""
    conn.execute(
        "insert into backfill.runs (run_id, root_run_id, step, assets, partitions, units)"
        " values ('r', 'r', 's', array['a/table'], 2, 100)"
    )
    conn.execute(BATCH, ["p1"])
    return conn


def test_in_a_pipe_only_changed_lines_are_printed_and_nothing_on_stdout(run, database_url, capfd):
    done = iter([lambda: False, lambda: False, lambda: bool(run.execute(BATCH, ["p2"]))])
    (step,) = follow_run(database_url, "r", lambda: next(done)(), poll=0, line_every=0)
    out, err = capfd.readouterr()
    first, last = err.splitlines()
    assert first.startswith("a/table: 50 of 100 units, ")
    assert last.startswith("a/table: 100 of 100 units, ")
    assert first.endswith(", 1 failed") and last.endswith(", 2 failed")
    assert out == ""
    assert (step.name, step.done, step.total) == ("a/table", 100, 100)


@pytest.mark.programs
def test_on_a_terminal_a_progress_bar_is_shown(run, database_url):
    parent, child = pty.openpty()
    env = os.environ | {"TERM": "xterm-256color", "COLUMNS": "200"}
    done = subprocess.run(
        [sys.executable, "-c", FOLLOW, database_url],
        stderr=child,
        stdout=subprocess.PIPE,
        env=env,
        check=True,
    )
    os.close(child)
    shown = b""
    while True:
        try:
            shown += os.read(parent, 65536)
        except OSError:  # the terminal is closed
            break
        if len(shown) > 10_000_000:
            break
    os.close(parent)
    assert "━" in shown.decode()
    assert "50 of 100 units" in shown.decode()
    assert done.stdout == b""


def test_following_survives_a_database_outage(run, database_url):
    asked = []

    def ended() -> bool:
        asked.append(
            run.execute(
                "select count(pg_terminate_backend(pid, 5000)) from pg_stat_activity"
                " where datname = current_database() and pid <> pg_backend_pid()"
            ).fetchone()
        )
        return len(asked) == 4

    (step,) = follow_run(database_url, "r", ended, poll=0, line_every=0)
    assert asked[0] == (0,)
    assert (1,) in asked
    assert step.done == 50


def test_an_import_is_followed_with_its_own_wording(conn, database_url, tmp_path, capfd):
    add_users(conn)
    file = str(write_csv(tmp_path / "a.csv", mixed_rows(50)))
    run_import(database_url, register(conn, file, [str(tmp_path)]).job, Options(), [str(tmp_path)])
    conn.execute("update kintell.backfill_jobs set run_id = 'r'")
    capfd.readouterr()
    (job,) = follow_run(database_url, "r", lambda: True, read_import)
    message = capfd.readouterr().err
    assert message.startswith("completed: 50 of 50 rows, ") and message.endswith("/s, 5 rejected\n")
    assert (job.done, job.total) == (50, 50)
