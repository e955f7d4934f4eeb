"""Applying `sql/migrations` and `sql/roles.sql` to a database.

A migration is a file `<schema>/NNNN_name.sql`. Its file name is its ID, and the numbers order the migrations of all
schemas. The schema named by the folder is created first if it does not exist. A file outside of the schema folders
belongs to no single schema. Migrations of disabled domains are not applied.
"""

import time
from collections.abc import Callable, Collection
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property
from hashlib import sha256
from pathlib import Path
from typing import Any

import psycopg
from psycopg import sql

from dagster_backfills.domain_switches import DOMAINS, OPERATIONS, enabled_domains, schemas_of
from dagster_backfills.errors import NotUsableError
from dagster_backfills.postgres.blockers import Blockers
from dagster_backfills.postgres.connection import backend_pid, connect
from dagster_backfills.state import project_file

Connection = psycopg.Connection[Any]

_ADVISORY_LOCK = 7_204_431_118  # an arbitrary constant, for "this project's migrations" within a database
# A migration that waits for a table lock blocks all later queries of the table, so it times out and retries.
_LOCK_TIMEOUT = "3s"
_LOCK_ATTEMPTS = 20
_CREATE_TABLE = """
create table backfill.schema_migrations (
    migration_id text primary key,
    digest text not null,
    applied_at timestamptz not null default clock_timestamp()
);
comment on table backfill.schema_migrations is
'The migrations that are applied, each with the SHA-256 of its file.';
"""
_FOREIGN_OBJECTS = """
select
    n.nspname,
    (array_agg(pg_describe_object(d.classid, d.objid, d.objsubid) order by d.classid, d.objid))[1],
    count(*) - 1
from pg_namespace as n
inner join pg_depend as d on d.refclassid = 'pg_namespace'::regclass and d.refobjid = n.oid and d.deptype = 'n'
where n.nspname = any(%s) and d.objid is distinct from to_regclass('backfill.schema_migrations')
group by n.nspname
order by n.nspname
"""


class MigrationError(NotUsableError):
    """A migration failed or is missing."""


@dataclass(frozen=True)
class MigrationState:
    """IDs of the applied and the pending migrations, in order. `changed` are applied ones whose file has changed."""

    applied: list[str]
    pending: list[str]
    changed: list[str]


@dataclass(frozen=True)
class _Migration:
    path: Path
    schema: str

    @property
    def id(self) -> str:
        return self.path.stem

    @cached_property
    def text(self) -> str:
        return self.path.read_text(encoding="utf-8")

    @property
    def digest(self) -> str:
        return sha256(self.text.encode()).hexdigest()


def migrations_dir() -> Path:
    """The folder that contains the schemas' folders."""
    return project_file("sql") / "migrations"


def apply_migrations(
    url: str, directory: Path | None = None, log: Callable[[str], None] = lambda line: None
) -> list[str]:
    """Apply the pending migrations and return their IDs. Writes nothing if none is pending.

    Safe for concurrent callers: the second waits and then finds nothing pending. Each migration is recorded as applied
    in its own transaction, so a failure leaves the database as the previous migration left it. A migration that waits
    too long for a lock is retried, and `log` is called with the sessions that hold it.
    """
    state = migration_state(url, directory)
    if state.changed:
        raise MigrationError(
            f"The file of migration {state.changed[0]} has changed since the migration was applied.",
            "Restore the file and put the change into a new migration.",
        )
    if not state.pending:
        return []
    with connect(url, autocommit=True) as conn:
        conn.execute("select pg_advisory_lock(%s)", [_ADVISORY_LOCK])
        applied = _applied(conn)
        migrations = _migrations(directory, applied)
        pending = [each for each in migrations if each.id not in applied]
        schemas = {"backfill", *(each.schema for each in pending)} - {""}
        _refuse_foreign_schemas(conn, schemas - {each.schema for each in migrations if each.id in applied})
        _create_schemas(conn, schemas)
        _apply_all(conn, url, pending, log)
        return [each.id for each in pending]


def migration_state(url: str, directory: Path | None = None) -> MigrationState:
    """The applied, pending and changed migrations. Read-only."""
    with connect(url, autocommit=True) as conn:
        applied = _applied(conn)
    migrations = _migrations(directory, applied)
    return MigrationState(
        applied=[each.id for each in migrations if each.id in applied],
        pending=[each.id for each in migrations if each.id not in applied],
        changed=[each.id for each in migrations if applied.get(each.id, each.digest) != each.digest],
    )


def require_migrations(url: str, directory: Path | None = None) -> None:
    """Raise MigrationError if a migration is pending."""
    pending = migration_state(url, directory).pending
    if pending:
        more = f" and {len(pending) - 1} more" if len(pending) > 1 else ""
        raise MigrationError(f"The database lacks migration {pending[0]}{more}.", "Run: backfills migrate")


def apply_roles(url: str) -> None:
    """Create missing roles and grant their privileges, in one transaction. Can be repeated."""
    with connect(url, autocommit=True) as conn:
        try:
            conn.execute((project_file("sql") / "roles.sql").read_bytes())
        except psycopg.Error as error:
            raise NotUsableError(
                f"sql/roles.sql failed: {error.diag.message_primary or error}. Nothing of it is applied.",
                "Run it as a superuser, or as a role that may create roles and owns the schemas' objects.",
            ) from error


def _migrations(directory: Path | None, applied: Collection[str]) -> list[_Migration]:
    """The migrations of the enabled domains, and those already applied: disabling a domain keeps its tables."""
    root = directory or migrations_dir()
    files = sorted(root.rglob("*.sql"), key=lambda path: path.name)
    migrations = [_Migration(path, path.parent.name if path.parent != root else "") for path in files]
    disabled = schemas_of({*DOMAINS, OPERATIONS}) - schemas_of(enabled_domains())
    return [each for each in migrations if each.schema not in disabled or each.id in applied]


def _applied(conn: Connection) -> dict[str, str]:
    """The digests of the applied migrations, by ID."""
    if conn.execute("select to_regclass('backfill.schema_migrations')").fetchone() == (None,):
        return {}
    return dict(conn.execute("select migration_id, digest from backfill.schema_migrations").fetchall())


def _refuse_foreign_schemas(conn: Connection, schemas: set[str]) -> None:
    """Raise MigrationError if a schema that would be migrated for the first time already contains objects."""
    rows = conn.execute(_FOREIGN_OBJECTS, [list(schemas)]).fetchall()
    if rows:
        what = "; ".join(f"{name} ({one}{f' and {more} more' if more else ''})" for name, one, more in rows)
        raise MigrationError(
            f"The database already has a schema with the name of one of ours: {what}. Nothing was changed.",
            "Use another database, or rename that schema: alter schema … rename to …",
        )


def _create_schemas(conn: Connection, schemas: set[str]) -> None:
    """Create missing schemas and the table of applied migrations."""
    for schema in sorted(schemas):
        # Not `if not exists`, which requires the CREATE privilege even if the schema exists.
        if conn.execute("select to_regnamespace(quote_ident(%s))", [schema]).fetchone() == (None,):
            conn.execute(sql.SQL("create schema {}").format(sql.Identifier(schema)))
    if conn.execute("select to_regclass('backfill.schema_migrations')").fetchone() == (None,):
        conn.execute(_CREATE_TABLE)


def _apply_all(conn: Connection, url: str, pending: list[_Migration], log: Callable[[str], None]) -> None:
    conn.execute("select set_config('lock_timeout', %s, false)", [_LOCK_TIMEOUT])
    with suppress(psycopg.Error):  # not supported everywhere: cancels the statement if this process is killed
        conn.execute("set client_connection_check_interval = '1s'")
    with Blockers(url, backend_pid(conn)) as blockers:
        for migration in pending:
            _apply_one(conn, migration, blockers, log)


def _apply_one(
    conn: Connection, migration: _Migration, blockers: Blockers, log: Callable[[str], None]
) -> None:
    """Apply and record a migration. `conn` is in autocommit mode and holds the advisory lock."""
    for attempt in range(1, _LOCK_ATTEMPTS + 1):
        try:
            with conn.transaction():
                conn.execute(migration.text)
                conn.execute(
                    "insert into backfill.schema_migrations (migration_id, digest) values (%s, %s)",
                    [migration.id, migration.digest],
                )
            return
        except psycopg.errors.LockNotAvailable as error:
            holders = f"Its tables are locked by {blockers.take() or 'a session that has ended since'}."
            if attempt == _LOCK_ATTEMPTS:
                raise _failed(migration, error, f"{holders} Wait for it or end it, and try again.") from error
            log(f"{migration.path.name} could not get its locks and will be retried. {holders}")
            time.sleep(0.5)
        except psycopg.Error as error:
            raise _failed(migration, error, "Fix the cause, then run: backfills migrate") from error


def _failed(migration: _Migration, error: psycopg.Error, hint: str) -> MigrationError:
    diagnosis = error.diag
    reason = ". ".join(part for part in (diagnosis.message_primary, diagnosis.message_detail) if part)
    message = f"Migration {migration.path.name} failed: {reason or error}."
    return MigrationError(message, f"Nothing of it is applied. {hint}")
