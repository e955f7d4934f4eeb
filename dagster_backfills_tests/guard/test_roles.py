"""What each of the four roles may and may not do, on real connections of real logins."""

import json
import shutil
import sys
from pathlib import Path

import psycopg
import pytest
from psycopg import errors
from psycopg.types.json import Jsonb

from dagster_backfills.domains.training.rollback import analyze
from dagster_backfills.postgres.migrations import apply_roles
from dagster_backfills_tests.domains.kintell.sample import add_users, row, write_csv
from dagster_backfills_tests.guard.conftest import ROLES, SOURCES, Guarded
from dagster_backfills_tests.programs import run

SCHEMAS = {"backfill", "training", "progress", "kintell", "jobs", "scoring", "operations"}
SECRET_TO_READERS = [
    "training.members", "training.employee_training_video_completions", "progress.users", "progress.user_progress",
    "kintell.users", "kintell.kintell_sessions", "kintell.backfill_row_errors", "kintell.event_outbox",
    "kintell.event_payloads", "jobs.background_jobs", "jobs.job_queue", "jobs.my_jobs", "scoring.members",
    "backfill.failures", "backfill.journal", "backfill.journal_entries", "dagster.runs", "dagster.event_logs",
]  # fmt: skip


def tables(guarded: Guarded, kinds: str = "rp") -> list[str]:
    with guarded.connect() as conn:
        found = conn.execute(
            "select format('%%I.%%I', n.nspname, c.relname) from pg_class c"
            " join pg_namespace n on n.oid = c.relnamespace where n.nspname = any(%s)"
            " and c.relkind = any(%s) order by 1",
            [[*SCHEMAS, "dagster"], list(kinds)],
        )
        return [row[0] for row in found]


def refused(conn: psycopg.Connection, statement: str, *binds: object) -> None:
    with pytest.raises(errors.InsufficientPrivilege):
        conn.execute(statement, binds)


# ---- the whole


def test_roles_name_every_schema_that_the_migrations_create(guarded: Guarded) -> None:
    with guarded.connect() as conn:
        made = conn.execute(
            "select nspname, pg_get_userbyid(nspowner) from pg_namespace"
            " where nspname !~ '^pg_' and nspname not in ('information_schema', 'public')"
        ).fetchall()
    assert dict(made) == dict.fromkeys(SCHEMAS | {"dagster"}, "backfills_owner")


def test_the_migrating_login_owns_nothing_and_public_has_no_rights(guarded: Guarded) -> None:
    with guarded.connect() as conn:
        owners = conn.execute(
            "select pg_get_userbyid(relowner) from pg_class where relnamespace = any(%(s)s::regnamespace[])"
            " union select pg_get_userbyid(proowner) from pg_proc where pronamespace = any(%(s)s::regnamespace[])",
            {"s": [*SCHEMAS, "dagster"]},
        ).fetchall()
        assert owners == [("backfills_owner",)]
        everybodys = conn.execute(
            "select p.oid::regprocedure from pg_proc p"
            " cross join aclexplode(coalesce(proacl, acldefault('f', proowner))) as a"
            " where a.grantee = 0 and p.pronamespace = any(%s::regnamespace[])",
            [[*SCHEMAS, "dagster"]],
        ).fetchall()
        assert everybodys == []


def test_every_security_definer_function_has_a_safe_search_path(
    guarded: Guarded,
) -> None:
    with guarded.connect() as conn:
        found = conn.execute(
            "select p.oid::regprocedure::text, p.proconfig from pg_proc p where p.prosecdef"
            " and p.pronamespace = any(%s::regnamespace[])",
            [list(SCHEMAS)],
        ).fetchall()
    assert len(found) > 5
    assert {name: "search_path=pg_catalog, pg_temp" in (config or []) for name, config in found} == {
        name: True for name, _ in found
    }


@pytest.mark.programs
def test_applying_the_roles_again_changes_nothing_and_revokes_manual_grants(
    guarded: Guarded,
) -> None:
    rights = (
        "select c.oid::regclass::text, c.relacl::text from pg_class c where relnamespace = any(%s::regnamespace[])"
        " union all select p.oid::regprocedure::text, proacl::text from pg_proc p"
        " where pronamespace = any(%s::regnamespace[]) union all select defaclnamespace::text || defaclobjtype::text,"
        " defaclacl::text from pg_default_acl"
    )
    every = [[*SCHEMAS, "dagster"]] * 2
    with guarded.connect() as conn:
        before = sorted(conn.execute(rights, every).fetchall())
        conn.execute("grant all on kintell.users to backfills_reader")
        apply_roles(guarded.admin)
        assert sorted(conn.execute(rights, every).fetchall()) == before
    # An upgrade needs no superuser: the owner's login migrates and reapplies the roles.
    done = guarded.backfills("owner", "migrate", "--roles")
    assert done.returncode == 0, done.stderr
    with guarded.connect() as conn:
        assert sorted(conn.execute(rights, every).fetchall()) == before


@pytest.mark.programs
def test_no_other_login_may_apply_them(guarded: Guarded) -> None:
    done = guarded.backfills("reader", "migrate", "--roles")
    assert done.returncode == 3
    assert "refused" in done.stderr or "permission denied" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.programs
def test_the_owners_login_sets_up_an_empty_database(server_url: str, template: str, guard) -> None:
    guarded = guard(False)
    with guarded.connect() as conn:
        for schema in (*SCHEMAS, "dagster"):
            conn.execute(psycopg.sql.SQL("drop schema {} cascade").format(psycopg.sql.Identifier(schema)))
    done = guarded.backfills("owner", "migrate", "--roles")
    assert done.returncode == 0, done.stderr
    with guarded.connect("writer") as conn:
        assert conn.execute("select count(*) from jobs.background_jobs").fetchone() == (0,)
        assert conn.execute("select count(*) from dagster.runs").fetchone() == (0,)


def test_tables_of_a_later_migration_are_granted_to_the_writer_and_not_to_the_reader(
    guarded: Guarded,
) -> None:
    with guarded.connect("owner") as owner:
        owner.execute("create table training.later (id bigint generated always as identity, note text)")
        owner.execute("create function training.later_note() returns text language sql as 'select ''x'''")
        owner.execute("create view training.later_view as select count(*) from training.later")
    with guarded.connect("writer") as writer, guarded.connect("reader") as reader:
        writer.execute("insert into training.later (note) values (training.later_note())")
        for name in ("training.later", "training.later_view"):
            refused(reader, f"select * from {name}")  # noqa: S608
        refused(reader, "select training.later_note()")
        apply_roles(guarded.admin)
        assert reader.execute("select * from training.later_view").fetchone() == (1,)
        refused(reader, "select * from training.later")
    with guarded.connect("owner") as owner:
        owner.execute("drop view training.later_view; drop table training.later")
        owner.execute("drop function training.later_note")


@pytest.mark.parametrize("role", ["writer", "reader", "enqueuer"])
def test_only_the_owner_can_alter_objects(guarded: Guarded, role: str) -> None:
    with guarded.connect(role) as conn:
        for schema in (*sorted(SCHEMAS), "dagster", "public"):
            refused(conn, f"create table {schema}.mine (i int)")
            refused(conn, f"create function {schema}.mine() returns int language sql as 'select 1'")
        for statement in (
            "create schema mine",
            "alter table progress.cohort_stats add column mine int",
            "drop table progress.cohort_stats",
            "truncate progress.cohort_stats",
            "create index on progress.cohort_stats (average_completion)",
            "alter table progress.user_progress disable trigger all",
            "create trigger t before insert on progress.cohort_stats for each row execute function"
            " progress.sources_changed()",
            "alter function jobs.enqueue_background_job security invoker",
            "set session_replication_role = 'replica'",
            "set role backfills_owner",
            "create role mine",
            "copy progress.cohort_stats to program 'cat'",
            "select pg_read_file('postgresql.conf')",
            "update backfill.schema_migrations set migration_id = 'none'",
            "delete from backfill.schema_migrations",
        ):
            refused(conn, statement)


# ---- the writer


def test_the_writer_can_not_write_the_applications_tables(guarded: Guarded) -> None:
    with guarded.connect("writer") as conn:
        for schema, names in SOURCES.items():
            for name in names:
                conn.execute(f"select * from {schema}.{name} limit 0")  # noqa: S608
                refused(conn, f"delete from {schema}.{name}")  # noqa: S608
                refused(conn, f"insert into {schema}.{name} select * from {schema}.{name}")  # noqa: S608
        refused(conn, "update scoring.members set first_name = ''")
        refused(conn, "update training.members set user_email = ''")


@pytest.fixture(scope="module")
def sources(guarded: Guarded) -> Guarded:
    """Some rows in every source table, inserted by an administrator."""
    with guarded.connect() as conn:
        conn.execute("insert into training.training_videos values ('v1', 'Video', 1), ('v2', 'Video', 2)")
        conn.execute("insert into training.organizations values ('o', 'Organization')")
        conn.execute(
            "insert into training.members (id, organization_id, user_email) values ('m', 'o', 'm@example.org')"
        )
        conn.execute("insert into progress.schools values ('s', 'School')")
        conn.execute("insert into progress.cohorts (id, school_id, name) values ('c', 's', 'One')")
        conn.execute("insert into progress.classes values ('k', 'c')")
        conn.execute("insert into progress.modules values ('m', 'k')")
        conn.execute("insert into progress.questions values ('q', 'm')")
        conn.execute("insert into progress.users values ('u', 'c', 'U', 'u@example.org')")
        conn.execute("insert into scoring.gyms values ('g', 'Gym')")
        conn.execute(
            "insert into scoring.members (id, gym_id, first_name, last_name, status, joined_date)"
            " values ('m', 'g', 'First', 'Last', 'active', current_date - 400)"
        )
        conn.execute(
            "insert into scoring.visits select 'm', current_date - d from generate_series(2, 60, 3) d"
        )
        add_users(conn)
    return guarded


def counted(guarded: Guarded, table: str) -> int:
    with guarded.connect() as conn:
        row = conn.execute(f"select count(*) from {table}").fetchone()  # noqa: S608
    assert row is not None
    return row[0]


@pytest.mark.timeout(900)
@pytest.mark.e2e
def test_every_domain_runs_from_end_to_end_as_the_writer(
    sources: Guarded, project_root: Path, tmp_path: Path
) -> None:
    shutil.copy(project_root / "dagster.yaml", tmp_path)
    file = write_csv(tmp_path / "a.csv", [row(n) for n in range(30)])
    text = (
        "Open the valve slowly. Check the pressure gauge. The pressure must stay below ten bar. "
        "Close the valve when the tank is full. Clean the work area. Report any leak to the supervisor."
    )
    with sources.connect("enqueuer") as application:
        given = Jsonb({"title": "Boiler", "transcript": text, "duration": 30})
        application.execute("select jobs.enqueue_background_job('sop_generation', %s)", [given])
    jobs = {
        "refresh_training_completions": {},
        "refresh_progress_stats": {},
        "import_kintell_sessions": {"file": str(file)},
        "refresh_daily_session_summary": {},
        "drain_background_jobs": {"idle_seconds": 1, "max_seconds": 60},
    }
    done = run(
        [sys.executable, "-m", "dagster_backfills_tests.guard.jobs_process"],
        input=json.dumps(list(jobs.items())),
        env=sources.environment("writer")
        | {"DAGSTER_HOME": str(tmp_path), "KINTELL_ALLOWED_LOCATIONS": str(tmp_path)}
        | {"JOBS_SOP_ENGINE": "embedded"},
    )
    assert done.stdout.splitlines() == [f"{job} True" for job in jobs], done.stderr[-4000:]
    scored = sources.backfills("writer", "run", "scoring", "--yes")
    assert scored.returncode == 0, scored.stdout + scored.stderr
    assert counted(sources, "training.employee_training_video_completions") == 2
    assert counted(sources, "progress.cohort_stats") == 1
    assert counted(sources, "kintell.kintell_sessions") == 30
    assert counted(sources, "kintell.daily_session_summary") > 0
    assert counted(sources, "jobs.background_jobs where status = 'completed'") == 1
    assert counted(sources, "scoring.commitment_scores") == 7  # the last week
    assert counted(sources, "scoring.members where commitment_day is not null") == 1
    with sources.connect("writer") as conn:
        rows = conn.execute("select pipeline_name from dagster.runs where status = 'SUCCESS'").fetchall()
    assert set(jobs) <= {row[0] for row in rows}


def test_tables_are_analyzed_if_postgres_lets_the_writer(guarded: Guarded) -> None:
    with guarded.connect("writer") as conn:
        notices: list[str] = []
        conn.add_notice_handler(lambda notice: notices.append(notice.message_primary or ""))
        conn.execute("analyze scoring.commitment_scores (day, member_id)")
        analyze(conn)
        assert bool(notices) == (conn.info.server_version < 170000)


@pytest.mark.programs
def test_the_doctor_reports_no_problem_with_tables_that_the_writer_may_not_see(guarded: Guarded) -> None:
    done = guarded.backfills("writer", "doctor", "--json")
    findings = {each["check"]: each["level"] for each in json.loads(done.stdout)["findings"]}
    assert findings["row security"] == findings["migrations"] == "ok", done.stdout


# ---- the reader


def test_the_reader_sees_every_view_and_the_results(sources: Guarded) -> None:
    shown = set(tables(sources, "vm")) - {
        "jobs.my_jobs",
        "kintell.event_payloads",
        "backfill.journal_entries",
    }
    assert {"backfill.run_progress", "progress.cohort_dashboard", "jobs.queue_metrics"} <= shown
    with sources.connect("reader") as conn:
        for name in sorted(shown):
            conn.execute(f"select * from {name} limit 5").fetchall()  # noqa: S608
        for result in ("progress.cohort_stats", "scoring.churn_risk_scores", "backfill.runs"):
            conn.execute(f"select * from {result}").fetchall()  # noqa: S608


def test_the_reader_can_not_write_nor_see_personal_data_jobs_or_dagsters_tables(guarded: Guarded) -> None:
    with guarded.connect("reader") as conn:
        for name in SECRET_TO_READERS:
            refused(conn, f"select * from {name}")  # noqa: S608
        for name in tables(guarded):
            refused(conn, f"delete from {name}")  # noqa: S608
            refused(conn, f"insert into {name} default values")
        refused(conn, "select jobs.enqueue_background_job('sop_generation', '{}')")
        refused(conn, "select backfill.mark_stale('a', '{b}')")


def test_a_login_that_only_reads_everything_can_run_every_monitoring_query(
    guarded: Guarded, project_root: Path
) -> None:
    with guarded.connect() as conn, conn.transaction(force_rollback=True):
        conn.execute("create role oncall in role pg_read_all_data, pg_monitor")
        conn.execute("set local role oncall")
        for query in sorted((project_root / "sql" / "monitoring").glob("*.sql")):
            conn.execute(query.read_bytes()).fetchall()
        refused(conn, "delete from backfill.failures")


# ---- the enqueuer


def test_there_are_four_roles_and_none_of_them_logs_in(guarded: Guarded) -> None:
    with guarded.connect() as conn:
        found = conn.execute(
            "select rolname, rolcanlogin, rolsuper, rolcreaterole, rolbypassrls from pg_roles"
            " where rolname = any(%s)",
            [[f"backfills_{role}" for role in ROLES]],
        ).fetchall()
    assert sorted(found) == sorted((f"backfills_{role}", False, False, False, False) for role in ROLES)
