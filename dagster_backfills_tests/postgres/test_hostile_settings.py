"""A database with unusual session settings: every command and trigger gives the same results."""

import json
import os

import dagster as dg
import psycopg
import pytest

from dagster_backfills.components.refresh import build_job
from dagster_backfills.dagster.io_manager import PostgresIOManager
from dagster_backfills.dagster.resource import PostgresResource
from dagster_backfills.defs.training.declared import TRAINING
from dagster_backfills.domains.kintell.file.register import register
from dagster_backfills.domains.kintell.importing.importer import Options, run_import
from dagster_backfills.domains.queue import queue
from dagster_backfills.domains.queue.worker import Worker, WorkerOptions
from dagster_backfills.postgres.connection import connect
from dagster_backfills.samples.training import generate_training, load_training
from dagster_backfills_tests.domains.kintell.sample import add_users, mixed_rows, state, write_csv
from dagster_backfills_tests.domains.queue.harmless import harmless_types
from dagster_backfills_tests.postgres.test_connection import HOSTILE, set_for_database
from dagster_backfills_tests.programs import SCRIPT, run

MARKED = "select distinct partition from backfill.stale_marks where asset = 'kintell/daily_session_summary' order by 1"
SESSION = """
    insert into kintell.kintell_sessions (
        external_session_id, session_type, participant_id, volunteer_id, scheduled_at, duration_minutes
    ) select 'app-1', 'language', p.id, v.id, timestamptz '2026-05-07 10:00+00', 30
    from kintell.users as p, kintell.users as v
    where p.email = 'Participant0@example.com' and v.email = 'Volunteer0@example.com'
"""


@pytest.fixture
def calm_and_hostile(make_database) -> list[str]:
    urls = [make_database(), make_database()]
    set_for_database(urls[1], {**HOSTILE, "search_path": "nowhere"})
    return urls


def imported(url, folder):
    with connect(url, autocommit=True) as conn:
        add_users(conn)
        path = write_csv(folder / f"{conn.info.dbname}.csv", mixed_rows(120))
        job = register(conn, str(path), [str(folder)], on_duplicate="skip").job
        run_import(url, job, Options(batch_rows=25), [str(folder)])
        return state(conn), conn.execute(MARKED).fetchall()


def trained(url):
    postgres = PostgresResource(url=url)
    with postgres.connect() as conn:
        load_training(conn, generate_training(organizations=3, members=20))
        conn.commit()
    resources = {"postgres": postgres, "io_manager": PostgresIOManager(postgres=postgres)}
    with dg.DagsterInstance.ephemeral() as instance:
        assert build_job(TRAINING).execute_in_process(instance=instance, resources=resources).success
    with psycopg.connect(url) as conn:
        return conn.execute(
            "select organization_id, member_id, video_id, completed_at is null"
            " from training.employee_training_video_completions order by member_id, video_id"
        ).fetchall()


def worked(url):
    with connect(url, autocommit=True) as conn:
        conn.execute("insert into jobs.job_types (job_type) values ('echo')")
        statement = "select jobs.enqueue_background_job('echo', '{\"a\": 1}')"
        (job,) = conn.execute(statement).fetchone() or ()
        Worker(url, harmless_types(), WorkerOptions(idle_seconds=0.5, max_seconds=60, poll_seconds=0.1)).run()
        found = queue.rows(conn, "one_job", job_id=job)[0]
        return found["status"], found["output_data"]


def shown(url, home, *command):
    env = os.environ | {"DATABASE_URL": url, "BACKFILLS_HOME": str(home)}
    done = run([SCRIPT, *command, "--json"], env=env)
    assert done.returncode == 0, done.stderr + done.stdout
    return json.loads(done.stdout)


@pytest.mark.programs
def test_import_training_queue_status_and_doctor_give_the_same_results(calm_and_hostile, tmp_path):
    calm, hostile = calm_and_hostile
    expected = imported(calm, tmp_path)
    assert imported(hostile, tmp_path) == expected and len(expected[0]["sessions"]) == 108
    records = trained(calm)
    assert trained(hostile) == records and len(records) > 50
    assert worked(hostile) == worked(calm) == ("completed", {"echo": {"a": 1}})
    pages = [shown(url, tmp_path, "status") for url in calm_and_hostile]
    assert pages[0]["backfills"] == pages[1]["backfills"]
    assert shown(hostile, tmp_path, "doctor")["ok"]


@pytest.mark.parametrize("style", ["SQL, DMY", "German", "Postgres, DMY"])
def test_a_session_saved_by_an_application_marks_its_day_whatever_its_date_style(conn, database_url, style):
    add_users(conn)
    with psycopg.connect(database_url) as application:
        application.execute(f"set datestyle = '{style}'; set timezone = 'Asia/Kolkata'; set search_path = ''")
        application.execute(SESSION)
        application.execute("update kintell.kintell_sessions set scheduled_at = '2026-05-08 23:00+00'")
        application.commit()
    assert conn.execute(MARKED).fetchall() == [("2026-05-07",), ("2026-05-08",)]


def test_triggers_work_for_an_application_with_rights_on_its_own_tables_only(conn, database_url):
    add_users(conn)
    conn.execute("insert into scoring.gyms (id, name) values ('g', 'G')")
    conn.execute(
        "insert into scoring.members (id, gym_id, first_name, last_name, status, joined_date)"
        " values ('m', 'g', 'a', 'b', 'active', '2026-01-01')"
    )
    conn.execute(
        "create role an_application; grant usage on schema kintell, scoring to an_application;"
        " grant all on kintell.kintell_sessions, kintell.users, scoring.members to an_application"
    )
    try:
        with psycopg.connect(database_url) as application:
            application.execute("set role an_application; set search_path = ''")
            application.execute(SESSION)
            application.execute("delete from kintell.kintell_sessions")
            application.execute("delete from scoring.members where id = 'm'")
        assert conn.execute(MARKED).fetchall() == [("2026-05-07",)]
    finally:
        conn.execute("drop owned by an_application; drop role an_application")


def test_every_trigger_function_has_its_own_search_path_and_security_definers_see_all_rows(conn):
    found = conn.execute(
        "select p.oid::regprocedure::text, p.prosecdef, coalesce(p.proconfig, '{}') from pg_proc as p"
        " where (p.prorettype = 'trigger'::regtype or p.prosecdef)"
        " and p.pronamespace = any('{backfill,training,progress,kintell,jobs,scoring,operations}'::regnamespace[])"
    ).fetchall()
    assert len(found) > 10
    unchecked = [
        name
        for name, definer, config in found
        if "search_path=pg_catalog, pg_temp" not in config or (definer and "row_security=off" not in config)
    ]
    assert unchecked == []
