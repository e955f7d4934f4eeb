"""Applying `sql/migrations` to a database, with yoyo. Not here: what the migrations say."""

import time
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psycopg

from dagster_backfills.errors import NotUsableError
from dagster_backfills.postgres.blockers import Blockers
from dagster_backfills.state import project_file

_TABLE = "backfill_migrations"
_ADVISORY_LOCK = 7_204_431_118  # any constant; names "the migrations of this project" within a database
# A migration that waits for a table holds up everyone who comes after it, so it gives way and tries again.
_LOCK_TIMEOUT = "3s"
_LOCK_ATTEMPTS = 20


class MigrationError(NotUsableError):
    """A migration that the database refused, or one that is missing."""


@dataclass(frozen=True)
class MigrationState:
    """Ids of the migrations that are applied and of those that wait, in order."""

    applied: list[str]
    pending: list[str]


def migrations_dir() -> Path:
    """The folder of `NNNN_*.sql`."""
    return project_file("sql") / "migrations"


def apply_migrations(
    url: str, directory: Path | None = None, log: Callable[[str], None] = lambda line: None
) -> list[str]:
    """Apply what is pending and return its ids; nothing pending is no work and writes nothing.

    Two callers at once are safe: the second waits and finds nothing left to do. A migration and the note that
    it is applied are one transaction: whatever stops it leaves the database as the migration before made it.
    One that begins with `-- transactional: false` runs statement by statement and must bear being run again.
    One that waits for a lock gives way after a moment and tries again; `log` is told who holds it.
    """
    if not migration_state(url, directory).pending:
        return []
    from yoyo import read_migrations

    with _open_backend(url) as backend:
        # Polled, not waited for: building an index concurrently waits for every statement that waits.
        while not backend.execute(f"select pg_try_advisory_lock({_ADVISORY_LOCK})").fetchone()[0]:
            time.sleep(0.1)
        pending = backend.to_apply(read_migrations(str(directory or migrations_dir())))
        backend.execute(f"set lock_timeout = '{_LOCK_TIMEOUT}'")
        with suppress(psycopg.Error):  # not on every system: end the statement of a caller that was killed
            backend.execute("set client_connection_check_interval = '1s'")
        with Blockers(url, backend.connection.info.backend_pid) as blockers:
            for migration in pending:
                _apply_one(backend, migration, blockers, log)
        return [migration.id for migration in pending]


def migration_state(url: str, directory: Path | None = None) -> MigrationState:
    """What is applied and what waits. Only reads."""
    with psycopg.connect(url, autocommit=True) as conn:
        known = conn.execute("select to_regclass(%s)", [_TABLE]).fetchone() != (None,)
        # The name is this module's own constant.
        rows = conn.execute(f"select migration_id from {_TABLE}").fetchall() if known else []  # noqa: S608
    done = {row[0] for row in rows}
    files = (directory or migrations_dir()).glob("*.sql")
    ids = sorted(path.stem for path in files if not path.name.endswith(".rollback.sql"))
    return MigrationState(applied=[i for i in ids if i in done], pending=[i for i in ids if i not in done])


def require_migrations(url: str, directory: Path | None = None) -> None:
    """Raise `MigrationError` unless everything is applied."""
    pending = migration_state(url, directory).pending
    if pending:
        more = f" and {len(pending) - 1} more" if len(pending) > 1 else ""
        raise MigrationError(f"The database lacks migration {pending[0]}{more}.", "Run: backfills migrate")


def _apply_one(backend: Any, migration: Any, blockers: Blockers, log: Callable[[str], None]) -> None:
    """Apply and note it. `backend` is in autocommit and holds the advisory lock."""
    for attempt in range(1, _LOCK_ATTEMPTS + 1):
        try:
            if not migration.use_transactions:
                migration.process_steps(backend, "apply")
                backend.mark_one(migration)
                return
            with backend.transaction():
                backend.cursor().execute(migration.source)
                backend.mark_one(migration)
            return
        except psycopg.errors.LockNotAvailable as error:
            held = blockers.take()
            who = f"Its tables are held by {held or 'someone who is gone by now'}."
            if attempt == _LOCK_ATTEMPTS:
                raise _refused(migration, error, f"{who} Wait for that or end it, and try again.") from error
            log(f"{Path(migration.path).name} gives way and tries again. {who}")
            time.sleep(0.5)
        except psycopg.Error as error:
            raise _refused(migration, error, "Mend the cause, then run: backfills migrate") from error


def _refused(migration: Any, error: psycopg.Error, hint: str) -> MigrationError:
    diagnosis = error.diag
    message = ". ".join(part for part in (diagnosis.message_primary, diagnosis.message_detail) if part)
    name = Path(migration.path).name
    undone = "Nothing of it is applied. " if migration.use_transactions else ""
    return MigrationError(f"Migration {name} failed: {message or error}.", f"{undone}{hint}")


def _open_backend(url: str) -> Any:
    """Yoyo's backend on a connection that libpq makes, so that every form of its URLs is good."""
    from yoyo.backends.core.postgresql import PostgresqlPsycopgBackend
    from yoyo.connections import parse_uri

    class Backend(PostgresqlPsycopgBackend):
        def connect(self, dburi: object) -> psycopg.Connection:
            return psycopg.connect(url, autocommit=True)

        def lock(self, timeout: float = 10) -> AbstractContextManager[None]:
            # The advisory lock is held. Yoyo's own is a row in a table, which a killed process leaves behind.
            return nullcontext()

    return Backend(parse_uri("postgresql+psycopg:///"), _TABLE)
