"""The engine's promises through declarations over users' own tables: kills, concurrent runs, bad units, undo."""

import subprocess
import sys
import time
from typing import Any

import dagster as dg
import pandas as pd
import psycopg
import pytest

from dagster_backfills.components.postgres_backfill import definitions_of
from dagster_backfills.engine.results import RESULTS
from dagster_backfills_tests.components.adopting import EXAMPLES, adopter, load, query
from dagster_backfills_tests.components.applications import COMPLIANCE, GYM, MONTHS
from dagster_backfills_tests.components.test_case_training import FIVE, records
from dagster_backfills_tests.dagster.storing import failure_description, versions
from dagster_backfills_tests.engine.undoing import previewed, undone

COMPLETIONS = 'public."EmployeeTrainingVideoCompletion"'
MEMBERS = """
insert into public."Member" (id, "organizationId", role)
select 'new_' || lpad(n::text, 3, '0'), 'org_' || (array['a', 'b', 'c'])[1 + n % 3], 'employee'
from generate_series(1, {count}) as n;
"""
ANN, BOB, CID = (f"10000000-0000-0000-0000-00000000000{n}" for n in (1, 2, 3))
VISITS = "select member_id::text, month::text, visits from attendance.member_months order by 1, 2"
OPEN = "select unit, message from backfill.failures where resolved_at is null"


@pytest.fixture
def compliance(conn: psycopg.Connection) -> psycopg.Connection:
    conn.execute(COMPLIANCE)
    return conn


@pytest.fixture
def gym(conn: psycopg.Connection) -> psycopg.Connection:
    conn.execute(GYM + MONTHS)
    return conn


def started(url: str, example: str) -> subprocess.Popen[str]:
    """A run in a separate process, which is ready and waits for a signal."""
    command = [sys.executable, "-m", "dagster_backfills_tests.components.declared_worker", url, example]
    worker = subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    )
    assert worker.stdout is not None and worker.stdout.readline() == "ready\n"
    return worker


def wait_until(conn: psycopg.Connection, text: str, expected: Any) -> None:
    deadline = time.monotonic() + 120
    while query(conn, text) != expected:
        assert time.monotonic() < deadline, text
        time.sleep(0.02)


# ---- killed, and two at once


@pytest.mark.programs
def test_a_run_killed_within_a_batch_leaves_none_of_it_and_the_next_run_does_the_rest(
    compliance: psycopg.Connection, database_url: str
) -> None:
    compliance.execute(MEMBERS.format(count=30))
    # The batch of mem_4 waits on its third row, with two of its rows written and none committed.
    compliance.execute(
        "create function public.wait() returns trigger language plpgsql as $$ begin"
        " if new.\"memberId\" = 'mem_4' and new.\"videoId\" = 'sat-3' then perform pg_advisory_xact_lock(77); end if;"
        f" return new; end $$; create trigger wait before insert on {COMPLETIONS}"
        " for each row execute function public.wait()"
    )
    waiting = "from pg_stat_activity where wait_event = 'advisory' and datname = current_database()"
    with psycopg.connect(database_url) as holder:
        holder.execute("select pg_advisory_lock(77)")
        worker = started(database_url, "training_completions")
        assert worker.stdin is not None
        worker.stdin.write("go\n")
        worker.stdin.flush()
        wait_until(compliance, "select count(*) " + waiting, [1])
        worker.kill()
        worker.wait()
        there = records(compliance)
        assert "mem_4" not in there
        assert 5 < len(there) < 34 and all(videos == FIVE for videos in there.values())
        # The server has yet to notice that the client is gone.
        compliance.execute("select pg_terminate_backend(pid) " + waiting)
        wait_until(compliance, "select count(*) " + waiting, [0])
    written = versions(compliance, COMPLETIONS)
    with adopter(load(EXAMPLES / "training_completions"), database_url) as a:
        a.refresh("all")
    assert set(map(tuple, records(compliance).values())) == {tuple(FIVE)}
    assert len(records(compliance)) == 33
    assert set(written) <= set(versions(compliance, COMPLETIONS))  # committed rows were not written again


@pytest.mark.programs
def test_two_runs_at_once_write_every_row_once(compliance: psycopg.Connection, database_url: str) -> None:
    compliance.execute(MEMBERS.format(count=60))
    both = [started(database_url, "training_completions") for _ in range(2)]
    for worker in both:
        assert worker.stdin is not None
        worker.stdin.write("go\n")
        worker.stdin.flush()
    assert [worker.communicate()[0] for worker in both] == ["done\n", "done\n"]
    there = records(compliance)
    assert len(there) == 63 and all(videos == FIVE for videos in there.values())
    written = query(compliance, "select sum(rows_inserted)::int from backfill.batches")
    assert written == [63 * 5 - 1]  # one existed already
    assert query(compliance, "select outcome, count(*)::int from backfill.runs group by 1") == [
        ("succeeded", 2)
    ]


# ---- a bad unit, what differs, what is gone


def test_only_the_bad_unit_fails_and_it_is_written_once_the_cause_is_gone(
    gym: psycopg.Connection, database_url: str
) -> None:
    gym.execute("alter table attendance.member_months add constraint few check (visits < 2)")
    with adopter(load(EXAMPLES / "member_months"), database_url) as a:
        a.refresh("all")
        assert query(gym, VISITS) == [(CID, "2026-01-01", 1)]
        [(unit, message)] = query(gym, OPEN)
        assert unit == ANN and 'violates check constraint "few"' in message
        gym.execute("alter table attendance.member_months drop constraint few")
        a.refresh("failed")
    assert query(gym, OPEN) == []
    assert query(gym, VISITS) == [(ANN, "2026-01-01", 2), (ANN, "2026-02-01", 1), (CID, "2026-01-01", 1)]


def test_a_partition_that_can_not_be_written_fails_alone(gym: psycopg.Connection, database_url: str) -> None:
    """Without units the whole partition fails. The other one is written, and only the failed one is retried."""
    gym.execute("alter table attendance.member_months add constraint few check (visits < 2)")
    table = {"table": "attendance.member_months", "partition_column": "gym_id"}
    with adopter(load(EXAMPLES / "member_months", tables=[table]), database_url) as a:
        a.refresh("all", expect=False)
        assert query(gym, VISITS) == [(CID, "2026-01-01", 1)]
        gym.execute("alter table attendance.member_months drop constraint few")
        before = versions(gym, "attendance.member_months")
        a.refresh("failed")
    assert len(query(gym, VISITS)) == 3
    assert set(before) <= set(versions(gym, "attendance.member_months"))
    newest = "select partitions from backfill.batches order by committed_at desc limit 1"
    assert query(gym, newest) == [["a0000000-0000-0000-0000-000000000000"]]


def test_only_differing_rows_are_written_and_rows_without_a_source_are_deleted(
    gym: psycopg.Connection, database_url: str
) -> None:
    with adopter(load(EXAMPLES / "member_months"), database_url) as a:
        a.refresh("all")
        before = versions(gym, "attendance.member_months")
        a.refresh("all")
        assert versions(gym, "attendance.member_months") == before
        gym.execute(
            "insert into public.member_activities (member_id, activity_date, activity_type) values (%s, %s, 'visit')",
            [CID, "2026-01-08"],
        )
        gym.execute("delete from public.member_activities where activity_date = '2026-02-01'")
        a.refresh("all")
    assert query(gym, VISITS) == [(ANN, "2026-01-01", 2), (CID, "2026-01-01", 2)]
    newest = (
        "select rows_updated, rows_deleted, rows_unchanged from backfill.batches order by committed_at desc"
    )
    assert query(gym, newest)[0] == (1, 1, 1)


@pytest.mark.parametrize("mode", ["upsert", "replace"])
def test_each_mode_treats_the_applications_own_rows_as_documented(
    gym: psycopg.Connection, database_url: str, mode: str
) -> None:
    """On the same table, `insert_missing` keeps the application's values, and the other modes correct them."""
    gym.execute(
        "insert into attendance.member_months values (%s, %s, '2026-01-01', 99)",
        ["a0000000-0000-0000-0000-000000000000", ANN],
    )
    table = {"table": "attendance.member_months", "unit": "member_id", "partition_column": "gym_id"}
    with adopter(
        load(EXAMPLES / "member_months", tables=[table | {"mode": "insert_missing"}]), database_url
    ) as a:
        a.refresh("all")
        assert (ANN, "2026-01-01", 99) in query(gym, VISITS)
    with adopter(load(EXAMPLES / "member_months", tables=[table | {"mode": mode}]), database_url) as a:
        a.refresh("all")
    assert query(gym, VISITS) == [(ANN, "2026-01-01", 2), (ANN, "2026-02-01", 1), (CID, "2026-01-01", 1)]


# ---- undone


def test_a_run_on_an_applications_own_table_is_undone_and_stays_undone(
    compliance: psycopg.Connection, database_url: str
) -> None:
    before = versions(compliance, COMPLETIONS)
    with adopter(load(EXAMPLES / "training_completions", stale_by="polling"), database_url) as a:
        a.settle()
        [run_id] = query(compliance, "select distinct run_id from backfill.batches")
        compliance.execute(
            """update public."EmployeeTrainingVideoCompletion" set "completedAt" = now()
            where "memberId" = 'mem_2' and "videoId" = 'sat-2'"""
        )
        preview = previewed(database_url, run_id).total("public/EmployeeTrainingVideoCompletion")
        assert (preview.deleted, preview.unchanged) == (13, 1)
        undone(database_url, run_id)
        # The application's own rows, and what a member has done since.
        assert records(compliance) == {"mem_1": ["sat-1"], "mem_2": ["sat-2"]}
        assert set(before) <= set(versions(compliance, COMPLETIONS))
        assert a.settle() == 0
        compliance.execute("""update public."Member" set role = 'owner' where id = 'mem_4'""")
        assert a.settle() == 1
        assert records(compliance) == {"mem_1": ["sat-1"], "mem_2": ["sat-2"], "mem_4": FIVE}
        a.refresh("all")  # requested by a person
        assert records(compliance) == dict.fromkeys(("mem_1", "mem_2", "mem_4"), FIVE)


@pytest.mark.parametrize("journal", [True, False])
def test_an_undo_is_offered_for_a_run_whose_changes_are_in_the_journal(
    gym: psycopg.Connection, database_url: str, journal: bool
) -> None:
    table = {"table": "attendance.member_months", "unit": "member_id", "partition_column": "gym_id"}
    backfill = load(EXAMPLES / "member_months", tables=[table | {"journal": journal}])
    with adopter(backfill, database_url) as a:
        changed, unchanged = a.refresh("all").run_id, a.refresh("all").run_id
    assert RESULTS.can_be_undone(gym, run_ids=[changed]) is journal
    assert RESULTS.can_be_undone(gym, run_ids=[unchanged]) is None


# ---- another database


def test_a_declaration_writes_to_the_database_that_it_names(
    conn: psycopg.Connection, make_database: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It uses its own resources. DATABASE_URL's database gets nothing."""
    other = make_database()
    monkeypatch.setenv("REPORTING_URL", other)
    monkeypatch.setenv("DATABASE_URL", "postgresql://127.0.0.1:1/nowhere")
    backfill = load(EXAMPLES / "member_months", database="REPORTING_URL")
    with psycopg.connect(other, autocommit=True) as reporting, dg.DagsterInstance.ephemeral() as instance:
        reporting.execute(GYM + MONTHS)
        job = definitions_of(backfill).get_repository_def().get_job("refresh_member_months")
        assert job.execute_in_process(instance=instance, run_config={"which": "all"}).success
        assert len(query(reporting, VISITS)) == 3
        assert query(reporting, "select sum(rows_inserted)::int from backfill.batches") == [3]
    assert query(conn, "select count(*) from backfill.batches") == [0]


def test_a_database_without_the_engines_tables_gives_an_error_with_a_hint(
    make_database: Any,
) -> None:
    empty = make_database(migrated=False)
    with psycopg.connect(empty, autocommit=True) as conn:
        conn.execute(GYM + MONTHS)
    backfill = load(EXAMPLES / "member_months", database="REPORTING_URL")
    with adopter(backfill, empty) as a:
        message = failure_description(a.refresh("all", expect=False))
    assert message.endswith(
        "does not have the engine's tables. Run: DATABASE_URL=$REPORTING_URL backfills migrate"
    )


# ---- computed in Python


def without_single_visits(months: pd.DataFrame) -> pd.DataFrame:
    return months[months["visits"] > 1]


def test_rows_can_be_computed_in_python_from_a_statements_frame(
    gym: psycopg.Connection, database_url: str
) -> None:
    table = {
        "table": "attendance.member_months", "unit": "member_id", "partition_column": "gym_id",
        "compute": f"{__name__}:without_single_visits", "reads": "member_months",
    }  # fmt: skip
    with adopter(load(EXAMPLES / "member_months", tables=[table]), database_url) as a:
        a.refresh("all")
    assert query(gym, VISITS) == [(ANN, "2026-01-01", 2)]
