"""Databases of every earlier version are migrated to this one with their data, and keep working."""

import shutil
from datetime import date
from types import SimpleNamespace

import dagster as dg
import psycopg
import pytest
from psycopg import sql

from dagster_backfills.components.refresh import build_job
from dagster_backfills.dagster.io_manager import PostgresIOManager
from dagster_backfills.dagster.resource import PostgresResource
from dagster_backfills.defs.progress.declared import PROGRESS
from dagster_backfills.defs.training.declared import TRAINING
from dagster_backfills.postgres.migrations import apply_migrations, migration_state, migrations_dir
from dagster_backfills.samples.progress import load_progress
from dagster_backfills.samples.progress_rows import ProgressSize
from dagster_backfills.samples.scoring import ScoringSize, load_sample
from dagster_backfills.samples.training import generate_training, load_training
from dagster_backfills_tests.chaos import domains
from dagster_backfills_tests.domains.kintell.sample import add_users

FILES = sorted(migrations_dir().rglob("*.sql"), key=lambda path: path.name)
VERSIONS = [path.stem for path in FILES]
DAY = date(2026, 3, 1)


def has(conn, table):
    return conn.execute("select to_regclass(%s)", [table]).fetchone() != (None,)


def load(conn):
    """Loads sample data into the tables that the version has."""
    if has(conn, "progress.user_progress_stats"):
        size = ProgressSize(schools=2, cohorts=6, users=60, progress=600, questions=20)
        load_progress(conn, size, seed=3, realtime=True)
    if has(conn, "training.members"):
        load_training(conn, generate_training(organizations=8, members=60))
    if has(conn, "kintell.kintell_sessions"):
        add_users(conn)
        conn.execute(
            "insert into kintell.kintell_sessions (external_session_id, session_type, participant_id, volunteer_id,"
            " scheduled_at, duration_minutes) select 's-' || n, 'language', p.id, v.id, '2026-03-01', 30"
            " from generate_series(1, 20) n, (select id from kintell.users where role = 'participant' limit 1) p,"
            " (select id from kintell.users where role = 'volunteer' limit 1) v"
        )
    if has(conn, "jobs.background_jobs"):
        conn.execute(
            "insert into jobs.background_jobs (job_type, unique_key, input_data)"
            " select 'mux_upload', 'k-' || n, '{\"video_url\": \"https://example.com/v\"}' from generate_series(1, 9) n"
        )
        conn.execute(
            "insert into jobs.job_queue (job_id, job_type, priority, created_at)"
            " select id, job_type, priority, created_at from jobs.background_jobs on conflict do nothing"
        )
    if has(conn, "scoring.members"):
        load_sample(conn, DAY, ScoringSize(gyms=2, members=40, coaches_per_gym=2))


def contents(conn):
    """The tables of the domains and the engine with their columns in this version."""
    tables = conn.execute(
        "select format('%%s.%%s', n.nspname, k.relname), array_agg(a.attname::text order by a.attnum)"
        " from pg_class k join pg_namespace n on n.oid = k.relnamespace"
        " join pg_attribute a on a.attrelid = k.oid and a.attnum > 0 and not a.attisdropped"
        " where k.relkind in ('r', 'p') and n.nspname = any(%s) and k.relname <> 'schema_migrations' group by 1",
        [["backfill", "progress", "training", "kintell", "jobs", "scoring"]],
    ).fetchall()
    return dict(tables)


def rows(conn, columns):
    found = {}
    for table, names in columns.items():
        statement = sql.SQL("select row({})::text from {} order by 1").format(
            sql.SQL(", ").join(map(sql.Identifier, names)), sql.Identifier(*table.split("."))
        )
        found[table] = conn.execute(statement).fetchall()
    return found


def refresh(url):
    """Does what automation does in the two declared domains."""
    postgres = PostgresResource(url=url)
    resources = {"postgres": postgres, "io_manager": PostgresIOManager(postgres=postgres)}
    with dg.DagsterInstance.ephemeral() as instance:
        for job in (build_job(PROGRESS), build_job(TRAINING)):
            assert job.execute_in_process(instance=instance, resources=resources).success


@pytest.mark.parametrize("version", VERSIONS[:-1])
def test_a_database_of_an_earlier_version_keeps_its_data_and_keeps_working(make_database, tmp_path, version):
    url = make_database(migrated=False)
    earlier = tmp_path / "earlier"
    for path in FILES[: VERSIONS.index(version) + 1]:
        copy = earlier / path.relative_to(migrations_dir())
        copy.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(path, copy)
    apply_migrations(url, earlier)
    with psycopg.connect(url, autocommit=True) as conn:
        load(conn)
        columns = contents(conn)
        before = rows(conn, columns)
        assert apply_migrations(url) == VERSIONS[VERSIONS.index(version) + 1 :]
        assert migration_state(url).pending == []
        after = rows(conn, columns)
        # A later version may add stale marks, but may not change or lose a row.
        assert {t: r for t, r in after.items() if t != "backfill.stale_marks"} == {
            t: r for t, r in before.items() if t != "backfill.stale_marks"
        }
        load_rest(conn, columns)
        refresh(url)
        expected = domains.Expected(days=[], scores={})
        stack = SimpleNamespace(nats=None)
        assert domains.training(conn, stack, expected) == []
        assert domains.progress(conn, stack, expected) == []


def load_rest(conn, columns):
    """Loads data into the domains that the earlier version did not have."""
    if "training.members" not in columns:
        load_training(conn, generate_training(organizations=8, members=60))
    if "scoring.members" not in columns:
        load_sample(conn, DAY, ScoringSize(gyms=2, members=40, coaches_per_gym=2))
