"""The database for the time of one command, and a run of a job that the command waits for."""

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import psycopg

from dagster_backfills.postgres.connection import connect
from dagster_backfills.postgres.embedded import EmbeddedServer, resolve_database_url
from dagster_backfills.postgres.migrations import require_migrations
from dagster_backfills.postgres.values import show_every_value
from dagster_backfills.state import state_dir

# Sessions of others, of whatever database.
_OTHERS = (
    "select 1 from pg_stat_activity where backend_type = 'client backend' and pid <> pg_backend_pid() limit 1"
)


@contextmanager
def glance() -> Iterator[psycopg.Connection[Any]]:
    """The database for a command that only looks: an embedded server that this starts is stopped, unless it is used."""
    server = None if os.environ.get("DATABASE_URL", "").strip() else EmbeddedServer(state_dir())
    ours = server.start() if server else False
    used = False
    try:
        with database() as conn:
            try:
                yield conn
            finally:
                used = not ours or bool(conn.execute(_OTHERS).fetchone())
    finally:
        if server and ours and not used:
            server.stop()


@contextmanager
def database() -> Iterator[psycopg.Connection[Any]]:
    """The database, migrated, for the time of one command."""
    url = resolve_database_url()
    require_migrations(url)
    with connect(url, autocommit=True, application_name="backfills", connect_timeout=10) as conn:
        show_every_value(conn)
        yield conn


def launch(
    job: str,
    config: Mapping[str, Any] | None = None,
    tags: Mapping[str, str] | None = None,
    watch: Any = None,
    module: str = "",
) -> tuple[str, int]:
    """Run a job of the code location, or of the one in `module`, and watch it; returns the run's id and the exit code.

    Dagster is loaded here, so that commands that only read the database answer at once.
    """
    from dagster_backfills.cli.launch import CODE_LOCATION, exit_code, run_job

    run = run_job(job, config, tags, module=module or CODE_LOCATION, watch=watch)
    return run.run_id, exit_code(run)
