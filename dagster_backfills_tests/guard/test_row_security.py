"""Row-level security on source tables: hidden rows give an error with a hint, and never count as missing."""

import dagster as dg
import psycopg
import pytest

from dagster_backfills.components.refresh import build_job
from dagster_backfills.dagster.io_manager import PostgresIOManager
from dagster_backfills.dagster.resource import PostgresResource
from dagster_backfills.defs.progress.declared import PROGRESS
from dagster_backfills.samples.progress import load_progress
from dagster_backfills.samples.progress_rows import ProgressSize
from dagster_backfills_tests.guard.conftest import Guarded

STATISTICS = "select count(*), sum(questions_interacted) from progress.user_progress_stats"


@pytest.fixture
def progress(guard) -> Guarded:
    guarded = guard(True)
    with guarded.connect() as conn:
        load_progress(conn, ProgressSize(schools=1, cohorts=3, users=30, progress=200, questions=10), seed=1)
    assert refresh(guarded)
    return guarded


def refresh(guarded: Guarded, **options: object) -> bool:
    """Computes all cohorts as the writer."""
    postgres = PostgresResource(url=guarded.url("writer"))
    resources = {"postgres": postgres, "io_manager": PostgresIOManager(postgres=postgres)}
    config = {"which": "all"}
    with dg.DagsterInstance.ephemeral() as instance:
        done = build_job(PROGRESS).execute_in_process(
            instance=instance, resources=resources, run_config=config, **options
        )
        return done.success


def test_a_backfill_with_hidden_source_rows_stops_with_one_error_and_changes_nothing(
    progress: Guarded,
) -> None:
    with progress.connect() as conn:
        before = conn.execute(STATISTICS).fetchone()
        conn.execute("alter table progress.users enable row level security")
        login = progress.logins["writer"]
        with pytest.raises(Exception, match="Row-level security hides rows") as raised:
            refresh(progress)
        assert 'policy for table "users"' in str(raised.value)
        assert f'alter role "{login}" bypassrls' in str(raised.value)
        assert conn.execute(STATISTICS).fetchone() == before != (0, None)
        assert conn.execute("select count(*) from backfill.failures").fetchone() == (0,)
        # A policy shows some rows, and it is unknown which ones it hides.
        conn.execute("create policy own_rows on progress.users for select using (id < 'm')")
        with pytest.raises(Exception, match="Row-level security hides rows"):
            refresh(progress)
        conn.execute(psycopg.sql.SQL("alter role {} bypassrls").format(psycopg.sql.Identifier(login)))
        assert refresh(progress)
        assert conn.execute(STATISTICS).fetchone() == before


def test_a_trigger_with_hidden_rows_rejects_the_write_and_deletes_nothing(progress: Guarded) -> None:
    with progress.connect() as conn:
        before = conn.execute(STATISTICS).fetchone()
        # Also forced on the owner, as which the triggers run.
        conn.execute("alter table progress.users enable row level security, force row level security")
        with pytest.raises(psycopg.errors.InsufficientPrivilege, match='policy for table "users"'):
            conn.execute("update progress.user_progress set is_mastered = not is_mastered")
        assert conn.execute(STATISTICS).fetchone() == before
        conn.execute("alter table progress.users no force row level security")
        conn.execute("update progress.user_progress set is_mastered = not is_mastered")
