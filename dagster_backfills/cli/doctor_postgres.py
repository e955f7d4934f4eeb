"""Checks of Postgres: reachable, supported version, session settings, migrations, clock, row security.

Not here: what a monitoring system watches, such as disks, vacuum and the number of connections in use.
"""

import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psycopg

from dagster_backfills.cli.errors import explain
from dagster_backfills.cli.finding import Finding, findings_of
from dagster_backfills.errors import UserError
from dagster_backfills.postgres.connection import connect, is_pooled, rows_hidden
from dagster_backfills.postgres.embedded import EmbeddedServer
from dagster_backfills.postgres.migrations import migration_state
from dagster_backfills.postgres.statements import load_statements
from dagster_backfills.state import state_dir

Connection = psycopg.Connection[Any]

_STATEMENTS = load_statements(Path(__file__).with_name("doctor.sql"))
_OLDEST, _NEWEST = 15, 18
# Six runs with one or two connections each, the pools of the UI, the daemon and its code server, and a psql session.
_NEEDED_CONNECTIONS = 40
_SKEW_SECONDS = 2.0
_MIB = 1024**2


def database_url() -> tuple[str, list[Finding]]:
    """The database's URL, without starting the server; or "" and a finding that says why there is none."""
    given = os.environ.get("DATABASE_URL", "").strip()
    if given:
        return given, []
    server = EmbeddedServer(state_dir())
    problems = findings_of(lambda: _not_running(server), "postgres")
    return "" if problems else server.url(), problems


def _not_running(server: EmbeddedServer) -> Iterator[Finding]:
    if not server.is_running():
        what = "is not running" if server.data.exists() else "has not been created yet"
        advice = "Start it: backfills up. Or set DATABASE_URL."
        yield Finding.error("postgres", f"The embedded server in {server.home} {what}.", advice)


def examine(url: str) -> list[Finding]:
    """Run every check of the database. If it can't be reached, the result is that one finding."""
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
        return [finding for name, check in checks for finding in findings_of(check, name)]


def server(row: dict[str, Any]) -> Iterator[Finding]:
    major, name = row["version"] // 10000, f"PostgreSQL {row['version_name']}, database {row['database']}"
    if major < _OLDEST:
        yield Finding.error("postgres", f"{name} is too old.", f"Use Postgres {_OLDEST} to {_NEWEST}.")
    elif row["in_recovery"] or row["read_only"]:
        why = "is a standby" if row["in_recovery"] else "is set to read only"
        yield Finding.error("postgres", f"{name} {why}.", "Point DATABASE_URL at the primary.")
    elif major > _NEWEST:
        yield Finding.warning(
            "postgres", f"{name} is newer than the tested versions.", f"Tested up to {_NEWEST}."
        )
    else:
        yield Finding.ok("postgres", f"{name}, {row['bytes'] / _MIB:,.0f} MiB")


def session(conn: Connection) -> Iterator[Finding]:
    """A pooler in transaction mode is not checked here: connecting through one already fails."""
    pooler = "Connected through a pooler in session mode." if is_pooled(conn) else "Connected directly."
    if _STATEMENTS.replication_role(conn) == "replica":
        found = "session_replication_role is replica: triggers don't fire, foreign keys are not checked."
        yield Finding.error("session", found, f"alter role {conn.info.user} reset session_replication_role")
    else:
        yield Finding.ok("session", pooler)


def migrations(url: str) -> Iterator[Finding]:
    state = migration_state(url)
    if state.changed:
        advice = "Restore the file and put the change into a new migration."
        yield Finding.error("migrations", f"{state.changed[0]} was changed after it was applied.", advice)
    elif state.pending:
        more = f" and {len(state.pending) - 1} more" if len(state.pending) > 1 else ""
        yield Finding.error("migrations", f"Pending: {state.pending[0]}{more}.", "Run: backfills migrate")
    else:
        yield Finding.ok("migrations", f"All {len(state.applied)} are applied.")


def row_security(conn: Connection) -> Iterator[Finding]:
    """Tables whose row security policies apply to this role: a run that reads one would fail."""
    hiding = [row[0] for row in _STATEMENTS.row_security(conn)]
    if hiding:
        error = rows_hidden(", ".join(hiding), conn.info.user)
        yield Finding.error("row security", error.message, error.hint)
    else:
        yield Finding.ok("row security", "No policy hides rows from this role.")


def connections(available: int) -> Iterator[Finding]:
    if available < _NEEDED_CONNECTIONS:
        advice = (
            f"Allow {_NEEDED_CONNECTIONS} or more: raise max_connections, or use a pooler in session mode."
        )
        found = f"{available:,} connections allowed; six runs, the UI and the daemon may need more."
        yield Finding.warning("connections", found, advice)
    else:
        yield Finding.ok("connections", f"{available:,} connections are allowed.")


def clock(conn: Connection) -> Iterator[Finding]:
    before = time.time()
    yield clocks(_STATEMENTS.clock(conn), before, time.time())


def clocks(theirs: float, before: float, after: float) -> Finding:
    """Compare the database's clock with the midpoint of the query's start and end on this machine."""
    skew, uncertainty = theirs - (before + after) / 2, (after - before) / 2
    if abs(skew) - uncertainty > _SKEW_SECONDS:
        where = "ahead of" if skew > 0 else "behind"
        found = f"The database's clock is {abs(skew):.1f} s {where} this machine's."
        advice = "Synchronize both with the same time server. Schedules and leases depend on these clocks."
        return Finding.warning("clock", found, advice)
    return Finding.ok("clock", "The database's clock and this machine's agree.")
