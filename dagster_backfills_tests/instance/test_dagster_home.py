"""The environment of Dagster's processes: its instance is in the same database, created once by the first process."""

import subprocess
import sys
from pathlib import Path

import psycopg
import psycopg2
import pytest
from psycopg.conninfo import conninfo_to_dict
from sqlalchemy import create_engine, text

from dagster_backfills.instance import dagster_home
from dagster_backfills.instance.dagster_home import dagster_environment, with_search_path
from dagster_backfills.state import project_file

PREPARE = """
from dagster_backfills.instance.dagster_home import dagster_environment
import os; os.environ.update(dagster_environment())
import dagster as dg
with dg.DagsterInstance.get() as instance:
    print(instance.get_runs_count())
"""
STATE = """
    select
        (select count(*) from pg_tables where schemaname = 'dagster'),
        (select count(*) from pg_tables where schemaname = 'public'),
        (select array_agg(version_num) from dagster.alembic_version),
        (select count(*) from dagster.secondary_indexes where migration_completed is not null)
"""


@pytest.fixture
def own(database_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """Sets the environment to the test's database and state folder."""
    monkeypatch.setenv("DATABASE_URL", database_url)
    monkeypatch.setenv("BACKFILLS_HOME", str(tmp_path / "state"))
    return database_url


def state(url: str) -> tuple:
    with psycopg.connect(url) as conn:
        row = conn.execute(STATE).fetchone()
        assert row is not None
        return row


def test_dagster_keeps_its_tables_in_a_schema_of_the_same_database(own: str):
    found = dagster_environment()
    tables, strays, versions, indexes = state(own)
    assert tables > 20
    assert strays == 0
    assert len(versions) == 1
    assert indexes > 5
    assert found["DATABASE_URL"] == own
    with psycopg2.connect(found["DAGSTER_POSTGRES_URL"]) as conn, conn.cursor() as cursor:
        cursor.execute("select count(*) from runs")
        assert cursor.fetchone() == (0,)


@pytest.mark.programs
def test_concurrent_first_processes_create_one_complete_instance(own: str):
    started = [
        subprocess.Popen([sys.executable, "-c", PREPARE], stdout=subprocess.PIPE, text=True) for _ in range(3)
    ]
    outputs = [process.communicate()[0].split()[-1] for process in started]
    assert outputs == ["0"] * 3
    dagster_environment()
    tables, strays, versions, indexes = state(own)
    assert (strays, len(versions)) == (0, 1)
    assert tables > 20
    assert indexes > 5


def test_an_interrupted_first_creation_is_started_again(own: str):
    dagster_environment()
    whole = state(own)
    with psycopg.connect(own) as conn:
        conn.execute("drop table dagster.job_ticks, dagster.kvs")
        conn.execute(f"comment on schema dagster is '{dagster_home._CREATING}'")
    dagster_environment()
    assert state(own) == whole


def test_an_existing_schema_is_unchanged(own: str):
    dagster_environment()
    with psycopg.connect(own) as conn:
        conn.execute("insert into dagster.kvs (key, value) values ('kept', 'yes')")
    dagster_environment()
    with psycopg.connect(own) as conn:
        assert conn.execute("select value from dagster.kvs where key = 'kept'").fetchone() == ("yes",)


def test_the_home_has_the_projects_own_settings_even_after_they_move(own: str, tmp_path: Path):
    home = Path(dagster_environment()["DAGSTER_HOME"])
    assert home == tmp_path / "state" / "dagster_home"
    settings = home / "dagster.yaml"
    assert settings.resolve() == project_file("dagster.yaml").resolve()
    settings.unlink()
    settings.write_text("telemetry:\n  enabled: true\n")
    dagster_environment()
    assert settings.resolve() == project_file("dagster.yaml").resolve()
    assert sorted(path.name for path in home.iterdir()) == ["dagster.yaml"]


def test_the_users_own_settings_are_kept_and_nothing_is_created_for_them(
    own: str, tmp_path: Path, monkeypatch
):
    given = {
        "DAGSTER_HOME": str(tmp_path / "mine"),
        "DAGSTER_POSTGRES_URL": "postgresql://elsewhere/dagster",
        "DAGSTER_EVENT_BATCH_SIZE": "7",
    }
    for name, value in given.items():
        monkeypatch.setenv(name, value)
    assert dagster_environment() == {"DATABASE_URL": own, **given}
    assert not (tmp_path / "state").exists()
    with psycopg.connect(own) as conn:
        assert conn.execute("select to_regnamespace('dagster')").fetchone() == (None,)


def test_no_tables_are_created_for_an_instance_with_another_storage(own: str, tmp_path: Path, monkeypatch):
    monkeypatch.setenv("DAGSTER_HOME", str(tmp_path))
    (tmp_path / "dagster.yaml").write_text("telemetry:\n  enabled: false\n")
    assert "DAGSTER_POSTGRES_URL" not in dagster_environment()
    with psycopg.connect(own) as conn:
        assert conn.execute("select to_regnamespace('dagster')").fetchone() == (None,)
    (tmp_path / "dagster.yaml").write_text(project_file("dagster.yaml").read_text())
    assert "DAGSTER_POSTGRES_URL" in dagster_environment()
    assert state(own)[0] > 20


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        (
            "postgres://me:p%40ss%2F@host:5433/db",
            {"user": "me", "password": "p@ss/", "host": "host", "port": "5433"},
        ),
        ("host=/var/run/x user=me dbname=db", {"user": "me", "host": "/var/run/x"}),
        (
            "postgresql://host/db?sslmode=require&options=-cwork_mem%3D1MB",
            {"host": "host", "sslmode": "require"},
        ),
        ("postgresql://me@/db?host=/a/b%20c&port=5432", {"user": "me", "host": "/a/b c", "port": "5432"}),
    ],
)
def test_every_form_of_a_url_becomes_one_that_dagster_accepts(url: str, expected: dict[str, str]):
    made = with_search_path(url, "dagster")
    given = conninfo_to_dict(made)
    options = str(given.pop("options"))
    assert given == {"dbname": "db", **expected}
    assert options.endswith("-csearch_path=dagster")
    assert ("work_mem" in options) == ("work_mem" in url)
    _, arguments = create_engine(made).dialect.create_connect_args(create_engine(made).url)
    assert {name: str(arguments[name]) for name in expected} == expected


def test_the_schema_is_first_for_sqlalchemy_too(own: str):
    engine = create_engine(dagster_environment()["DAGSTER_POSTGRES_URL"])
    with engine.connect() as conn:
        assert conn.execute(text("select current_schema()")).scalar() == "dagster"
    engine.dispose()


def test_the_batch_size_of_events_has_a_default(own: str, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.delenv("DAGSTER_EVENT_BATCH_SIZE", raising=False)  # an instance of a wider fixture sets it
    assert dagster_environment()["DAGSTER_EVENT_BATCH_SIZE"] == "1000"
