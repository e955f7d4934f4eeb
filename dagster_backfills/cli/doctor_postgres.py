"""The doctor's look at Postgres: reachable, of a version that serves, migrated, indexed, with room and in time."""

import os
import re
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psycopg
from psycopg.rows import dict_row

from dagster_backfills.cli.doctor_machine import disk
from dagster_backfills.cli.errors import explain
from dagster_backfills.cli.finding import Finding, found_by
from dagster_backfills.cli.output import duration
from dagster_backfills.postgres.embedded import EmbeddedServer
from dagster_backfills.postgres.migrations import migration_state, migrations_dir
from dagster_backfills.postgres.statements import load_queries
from dagster_backfills.state import state_dir

Connection = psycopg.Connection[Any]

_OLDEST, _NEWEST = 15, 18
_CONNECT_SECONDS = 5
# Six runs with a connection or two each, the UI, the daemon and its code server with their pools, and a person.
_NEEDED_CONNECTIONS = 40
_SKEW_SECONDS = 2.0
_LONG_TRANSACTION_SECONDS = 3600
# Postgres stops taking writes when two billion are left unfrozen.
_LAST_TRANSACTION_AGE = 1_500_000_000
_MIB = 1024**2
_MADE = re.compile(
    r"^\s*create\s+(?:unique\s+)?index\s+(?:concurrently\s+)?(?:if\s+not\s+exists\s+)?(\w+)\s+on\s+(?:only\s+)?(\w+)\.",
    re.IGNORECASE | re.MULTILINE,
)
_DROPPED = re.compile(
    r"^\s*drop\s+index\s+(?:concurrently\s+)?(?:if\s+exists\s+)?(\w+)\.(\w+)", re.IGNORECASE | re.MULTILINE
)


def database_url() -> tuple[str, list[Finding]]:
    """Where the database is, without starting it; empty, with the reason, where there is none."""
    given = os.environ.get("DATABASE_URL", "").strip()
    if given:
        return given, []
    server = EmbeddedServer(state_dir())
    (finding,) = found_by(lambda: [_embedded(server)], "postgres")
    return ("", [finding]) if finding.level.value == "error" else (server.url(), [])


def _embedded(server: EmbeddedServer) -> Finding:
    if server.is_running():
        return Finding.ok("postgres", "The embedded server runs.")
    what = "is not running" if server.data.exists() else "has not been made yet"
    advice = "Start it: backfills up. Or set DATABASE_URL."
    return Finding.error("postgres", f"The embedded server in {server.home} {what}.", advice)


def examine(url: str) -> list[Finding]:
    """Every check of the database; one finding where it can't be reached."""
    try:
        conn = psycopg.connect(
            url, autocommit=True, connect_timeout=_CONNECT_SECONDS, application_name="backfills doctor"
        )
    except psycopg.Error as error:
        _, message, hint = explain(error)
        return [Finding.error("postgres", message, hint)]
    with conn:
        checks: list[tuple[str, Callable[[], Iterator[Finding]]]] = [
            ("postgres", lambda: server(_row(conn, "server"))),
            ("migrations", lambda: migrations(url)),
            ("indexes", lambda: indexes(conn)),
            ("connections", lambda: connections(**_row(conn, "connections"))),
            ("vacuum", lambda: vacuum(**_row(conn, "vacuum"))),
            ("transactions", lambda: transactions(_row(conn, "oldest_transaction"))),
            ("data folder", lambda: data_folder(conn)),
            ("clock", lambda: clock(conn)),
        ]
        return [finding for name, check in checks for finding in found_by(check, name)]


def _row(conn: Connection, name: str) -> dict[str, Any]:
    statement = load_queries(Path(__file__).with_name("doctor.sql"))[name]
    return conn.cursor(row_factory=dict_row).execute(statement, {}).fetchone() or {}


def _column(conn: Connection, name: str) -> list[Any]:
    statement = load_queries(Path(__file__).with_name("doctor.sql"))[name]
    return [row[0] for row in conn.execute(statement, {}).fetchall()]


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


def migrations(url: str) -> Iterator[Finding]:
    state = migration_state(url)
    if not state.pending:
        yield Finding.ok("migrations", f"All {len(state.applied)} are applied.")
        return
    more = f" and {len(state.pending) - 1} more" if len(state.pending) > 1 else ""
    yield Finding.error("migrations", f"{state.pending[0]}{more} waits.", "Run: backfills migrate")


def expected_indexes(directory: Path, applied: set[str]) -> set[str]:
    """The named indexes that the applied migrations leave behind. Those of constraints are not among them."""
    found: set[str] = set()
    for path in sorted(directory.glob("*.sql")):
        if path.stem in applied:
            text = path.read_text()
            found |= {f"{schema}.{index}" for index, schema in _MADE.findall(text)}
            found -= {f"{schema}.{index}" for schema, index in _DROPPED.findall(text)}
    return found


def indexes(conn: Connection) -> Iterator[Finding]:
    invalid = _column(conn, "invalid_indexes")
    applied = _column(conn, "applied_migrations") if _knows_migrations(conn) else []
    expected = expected_indexes(migrations_dir(), set(applied))
    missing = sorted(expected - set(_column(conn, "indexes")))
    for name in invalid:
        advice = f"Make it again: reindex index concurrently {name}"
        yield Finding.warning("indexes", f"{name} is invalid: it costs writes and serves no read.", advice)
    for name in missing:
        advice = "Create it as sql/migrations has it; reads are slow without."
        yield Finding.error("indexes", f"{name} is missing.", advice)
    if not invalid and not missing:
        yield Finding.ok("indexes", f"All {len(expected)} are there and valid.")


def _knows_migrations(conn: Connection) -> bool:
    return conn.execute("select to_regclass('backfill_migrations')").fetchone() != (None,)


def connections(used: int, available: int) -> Iterator[Finding]:
    found = f"{used:,} of {available:,} connections are taken."
    if used >= 0.95 * available:
        yield Finding.error("connections", found, "End idle ones, or raise max_connections.")
    elif used >= 0.8 * available:
        yield Finding.warning("connections", found, "Raise max_connections, or use a pooler.")
    elif available < _NEEDED_CONNECTIONS:
        advice = f"Allow {_NEEDED_CONNECTIONS} or more: raise max_connections."
        yield Finding.warning(
            "connections", f"{found} Six runs, the UI and the daemon may take more.", advice
        )
    else:
        yield Finding.ok("connections", found)


def vacuum(autovacuum: bool, transaction_age: int, freeze_age: int) -> Iterator[Finding]:
    found = f"The oldest unfrozen transaction is {transaction_age:,} transactions old."
    if transaction_age > _LAST_TRANSACTION_AGE:
        yield Finding.error("vacuum", found, "Writes stop at two billion. Run: vacuum (freeze)")
    elif not autovacuum:
        advice = "alter system set autovacuum = on; select pg_reload_conf()"
        yield Finding.error("vacuum", "Autovacuum is off: tables grow with every update.", advice)
    elif transaction_age > 1.5 * freeze_age:
        advice = "Autovacuum does not keep up: look for what holds it, then vacuum (freeze)."
        yield Finding.warning("vacuum", found, advice)
    else:
        yield Finding.ok("vacuum", f"Autovacuum is on. {found}")


def transactions(row: dict[str, Any]) -> Iterator[Finding]:
    if row and row["seconds"] > _LONG_TRANSACTION_SECONDS:
        found = f"{row['application']} (pid {row['pid']}) has been in a transaction for {duration(row['seconds'])}."
        yield Finding.warning(
            "transactions", found, f"Dead rows stay until it ends: select pg_terminate_backend({row['pid']})"
        )
    else:
        yield Finding.ok("transactions", "None is open for longer than an hour.")


def data_folder(conn: Connection) -> Iterator[Finding]:
    """The server's disk, where that is this machine's and may be seen."""
    row = _row(conn, "data_folder")
    path = Path(row["path"]) if row["path"] and row["by_socket"] else None
    try:
        there = path is not None and path.exists()
    except OSError:
        there = False
    if path is None or not there:
        yield Finding.ok("data folder", "It can't be seen from here; watch the server's disk there.")
    else:
        yield disk("data folder", path, path)


def clock(conn: Connection) -> Iterator[Finding]:
    before = time.time()
    (theirs,) = _column(conn, "clock")
    yield clocks(theirs, before, time.time())


def clocks(theirs: float, before: float, after: float) -> Finding:
    """The database's clock against the middle of the question's way there and back."""
    skew, unsure = theirs - (before + after) / 2, (after - before) / 2
    if abs(skew) - unsure > _SKEW_SECONDS:
        where = "ahead of" if skew > 0 else "behind"
        found = f"The database's clock is {abs(skew):.1f} s {where} this machine's."
        advice = "Let both follow the same time server. Schedules and leases go by these clocks."
        return Finding.warning("clock", found, advice)
    return Finding.ok("clock", "The database's clock and this machine's agree.")
