"""The role of an application that enqueues jobs: what it may do, and which jobs it sees."""

import psycopg
import pytest
from psycopg import errors
from psycopg.types.json import Jsonb

from dagster_backfills_tests.guard.conftest import Guarded
from dagster_backfills_tests.guard.test_roles import refused, tables

INPUT = {"title": "T", "transcript": "Open the valve.", "duration": 3}
ENQUEUE = "select jobs.enqueue_background_job('sop_generation', %s, {})"


def enqueue(conn: psycopg.Connection, more: str = "priority => 5", *binds: object) -> object:
    row = conn.execute(ENQUEUE.format(more), [Jsonb(INPUT), *binds]).fetchone()
    assert row is not None
    return row[0]


def test_the_enqueuer_enqueues_and_sees_its_own_jobs_only(guarded: Guarded) -> None:
    with guarded.connect("enqueuer") as application, guarded.connect("writer") as other:
        other.execute("delete from jobs.background_jobs")
        mine, theirs = enqueue(application), enqueue(other)
        seen = application.execute("select id, status, input_data from jobs.my_jobs").fetchall()
        assert seen == [(mine, "pending", INPUT)]
        assert other.execute(
            "select id from jobs.my_jobs where id = any(%s)", [[mine, theirs]]
        ).fetchall() == [(theirs,)]
        # Setting another role changes nothing: the login counts.
        application.execute("set role backfills_enqueuer")
        assert application.execute("select id from jobs.my_jobs").fetchall() == [(mine,)]


def test_a_leaking_condition_is_not_evaluated_on_others_jobs(guarded: Guarded) -> None:
    with guarded.connect("enqueuer") as application, guarded.connect("writer") as other:
        enqueue(application)
        enqueue(other)
        application.execute(
            "create function pg_temp.tell(job_type text, id uuid) returns boolean language plpgsql cost 0.0000001"
            " as $$ begin raise notice '%', id; return true; end $$"
        )
        message: list[str] = []
        application.add_notice_handler(lambda notice: message.append(notice.message_primary or ""))
        seen = application.execute(
            "select id::text from jobs.my_jobs where pg_temp.tell(job_type, id)"
        ).fetchall()
        assert sorted(message) == sorted(row[0] for row in seen)


def test_follow_up_jobs_belong_to_the_application_of_the_first_job(guarded: Guarded) -> None:
    follow = Jsonb([{"job_type": "sop_generation", "input_data": INPUT}])
    with guarded.connect("enqueuer") as application, guarded.connect("writer") as worker:
        worker.execute("delete from jobs.background_jobs")
        first = enqueue(application, "then_steps => %s", follow)
        [(job, attempt)] = worker.execute("select id, attempt from jobs.claim_jobs('w', 99)").fetchall()
        assert job == first
        worker.execute("select jobs.complete_jobs(%s, %s, array['{}']::jsonb[])", [[job], [attempt]])
        seen = application.execute(
            "select status, parent_id from jobs.my_jobs order by created_at"
        ).fetchall()
        assert seen == [("completed", None), ("pending", first)]


def test_the_enqueuer_can_not_make_its_job_a_child_of_anothers(guarded: Guarded) -> None:
    with guarded.connect("enqueuer") as application, guarded.connect("writer") as other:
        theirs, mine = enqueue(other), enqueue(application)
        with pytest.raises(errors.InvalidParameterValue, match="to be the parent"):
            enqueue(application, "parent_id => %s", theirs)
        assert enqueue(application, "parent_id => %s", mine)
        assert enqueue(other, "parent_id => %s", mine)


def test_the_enqueuer_can_do_nothing_else(guarded: Guarded) -> None:
    with guarded.connect("enqueuer") as conn:
        for name in tables(guarded, "rpvm"):
            if name != "jobs.my_jobs":
                refused(conn, f"select * from {name}")  # noqa: S608
        for name in tables(guarded):
            refused(conn, f"delete from {name}")  # noqa: S608
        refused(conn, "delete from jobs.my_jobs")
        refused(conn, "insert into jobs.my_jobs (job_type) values ('sop_generation')")
        refused(conn, "update jobs.my_jobs set priority = 1")
        for call in (
            "claim_jobs('w', 1)",
            "cancel_job(gen_random_uuid())",
            "complete_jobs('{}', '{}', '{}')",
            "retry_failed_jobs(null, 'sop_generation')",
            "enqueue_background_jobs('sop_generation', '{}')",
            "clean_up_background_jobs()",
        ):
            refused(conn, f"select jobs.{call}")
        refused(conn, "select progress.write_user_stats('{}')")


def test_an_object_in_another_schema_does_not_replace_what_the_function_calls(guarded: Guarded) -> None:
    with guarded.connect("enqueuer") as conn:
        conn.execute(
            "create function pg_temp.clock_timestamp() returns timestamptz language plpgsql as"
            " $$ begin raise exception 'hijacked as %', current_user; end $$"
        )
        conn.execute(
            "create temporary table job_types (job_type text); set search_path = pg_temp, pg_catalog"
        )
        assert enqueue(conn, "run_after => now()")
