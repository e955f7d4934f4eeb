"""The doctor's look at Postgres: reachable, in a session of its own, of a version that serves, migrated, in time, and
showing all rows. Not here: what a monitoring system watches, disks, vacuum and how many connections are in use."""

import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psycopg

from dagster_backfills.cli.errors import explain
from dagster_backfills.cli.finding import Finding, found_by
from dagster_backfills.errors import UserError
from dagster_backfills.postgres.connection import connect, is_pooled, rows_hidden
from dagster_backfills.postgres.embedded import EmbeddedServer
from dagster_backfills.postgres.migrations import migration_state
from dagster_backfills.postgres.statements import load_statements
from dagster_backfills.state import state_dir

Connection = psycopg.Connection[Any]

_STATEMENTS = load_statements(Path(__file__).with_name("doctor.sql"))
_OLDEST, _NEWEST = 15, 18
# Six runs with a connection or two each, the UI, the daemon and its code server with their pools, and a person.
_NEEDED_CONNECTIONS = 40
_SKEW_SECONDS = 2.0
_MIB = 1024**2


def database_url() -> tuple[str, list[Finding]]:
    """Where the database is, without starting it; empty, with the reason, where there is none."""
    given = os.environ.get("DATABASE_URL", "").strip()
    if given:
        return given, []
    server = EmbeddedServer(state_dir())
    problems = found_by(lambda: _not_running(server), "postgres")
    return "" if problems else server.url(), problems


def _not_running(server: EmbeddedServer) -> Iterator[Finding]:
    if not server.is_running():
        what = "is not running" if server.data.exists() else "has not been made yet"
        advice = "Start it: backfills up. Or set DATABASE_URL."
        yield Finding.error("postgres", f"The embedded server in {server.home} {what}.", advice)


def examine(url: str) -> list[Finding]:
    """Every check of the database; one finding where it can't be reached."""
    try:
        conn = connect(url, autocommit=True, connect_timeout=5, application_name="backfills doctor")
    except (psycopg.Error, UserError) as error:
        _, message, hint = explain(error)
        return [Finding.error("postgres", message, hint)]
    with conn:
        checks: list[tuple[str, Callable[[], Iterator[Finding]]]] = [
            ("postgres", lambda: server(*_STATEMENTS.server.dicts(conn))),
            ("session", lambda: session(conn)),
            ("migrations", lambda: migrations(url)),
            ("row security", lambda: row_security(conn)),
            ("connections", lambda: connections(_STATEMENTS.connections(conn))),
            ("clock", lambda: clock(conn)),
        ]
        return [finding for name, check in checks for finding in found_by(check, name)]


def server(row: dict[str, Any]) -> Iterator[Finding]:
    major, name = row["version"] // 10000, f"PostgreSQL {row['version_name']}, database {row['database']}"
    if major < _OLDEST:
        yield Finding.error("postgres", f"{name} is too old.", f"Use Postgres {_OLDEST} to {_NEWEST}.")
    elif row["in_recovery"] or row["read_only"]:
        why = "is a standby" if row["in_recovery"] else "is set to read only"
        yield Finding.error("postgres", f"{name} {why}.", "Point DATABASE_URL at the primary.")
    elif major > _NEWEST:
        yield Finding.warning(
            "postgres", f"{name} is newer than what was tested.", f"Tested: up to {_NEWEST}."
        )
    else:
        yield Finding.ok("postgres", f"{name}, {row['bytes'] / _MIB:,.0f} MiB")


def session(conn: Connection) -> Iterator[Finding]:
    """Poolers that keep no session are an error of connecting."""
    between = (
        "A pooler stands between, and keeps sessions." if is_pooled(conn) else "No pooler stands between."
    )
    if _STATEMENTS.replication_role(conn) == "replica":
        found = "session_replication_role is replica: no trigger runs, no foreign key is checked."
        yield Finding.error("session", found, f"alter role {conn.info.user} reset session_replication_role")
    else:
        yield Finding.ok("session", between)


def migrations(url: str) -> Iterator[Finding]:
    state = migration_state(url)
    if state.changed:
        advice = "Restore the file and put the change into a new migration."
        yield Finding.error("migrations", f"{state.changed[0]} was changed after it was applied.", advice)
    elif state.pending:
        more = f" and {len(state.pending) - 1} more" if len(state.pending) > 1 else ""
        yield Finding.error("migrations", f"{state.pending[0]}{more} waits.", "Run: backfills migrate")
    else:
        yield Finding.ok("migrations", f"All {len(state.applied)} are applied.")


def row_security(conn: Connection) -> Iterator[Finding]:
    """Tables with policies that apply to this role: reading one ends in an error, which it is better to know before."""
    hiding = [row[0] for row in _STATEMENTS.row_security(conn)]
    if hiding:
        error = rows_hidden(", ".join(hiding), conn.info.user)
        yield Finding.error("row security", error.message, error.hint)
    else:
        yield Finding.ok("row security", "No policy hides rows.")


def connections(available: int) -> Iterator[Finding]:
    if available < _NEEDED_CONNECTIONS:
        advice = (
            f"Allow {_NEEDED_CONNECTIONS} or more: raise max_connections, or use a pooler in session mode."
        )
        found = f"{available:,} connections; six runs, the UI and the daemon may take more."
        yield Finding.warning("connections", found, advice)
    else:
        yield Finding.ok("connections", f"{available:,} connections are allowed.")


def clock(conn: Connection) -> Iterator[Finding]:
    before = time.time()
    yield clocks(_STATEMENTS.clock(conn), before, time.time())


def clocks(theirs: float, before: float, after: float) -> Finding:
    """The database's clock against the middle of the question's way there and back."""
    skew, unsure = theirs - (before + after) / 2, (after - before) / 2
    if abs(skew) - unsure > _SKEW_SECONDS:
        where = "ahead of" if skew > 0 else "behind"
        found = f"The database's clock is {abs(skew):.1f} s {where} this machine's."
        advice = "Let both follow the same time server. Schedules and leases go by these clocks."
        return Finding.warning("clock", found, advice)
    return Finding.ok("clock", "The database's clock and this machine's agree.")
