"""Applying `sql/migrations` to a database, and `sql/roles.sql`. Not here: what they say.

A migration is a file, `<schema>/NNNN_name.sql`; its name is its id, and the numbers order those of all schemas. The
schema that its folder is named after is made first, unless it is there and empty. A file beside the folders belongs to
no schema alone. Of the domains only those that are switched on have theirs made.
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

from dagster_backfills.domain_switches import DOMAINS, OPERATIONS, schemas_of, switched_on
from dagster_backfills.errors import NotUsableError
from dagster_backfills.postgres.blockers import Blockers
from dagster_backfills.postgres.connection import backend_pid, connect
from dagster_backfills.state import project_file

Connection = psycopg.Connection[Any]

_ADVISORY_LOCK = 7_204_431_118  # any constant; names "the migrations of this project" within a database
# A migration that waits for a table holds up everyone who comes after it, so it gives way and tries again.
_LOCK_TIMEOUT = "3s"
_LOCK_ATTEMPTS = 20
_NOTES = """
create table backfill.schema_migrations (
    migration_id text primary key,
    digest text not null,
    applied_at timestamptz not null default clock_timestamp()
);
comment on table backfill.schema_migrations is
'The migrations that are applied, each with the SHA-256 of its file.';
"""
_STRANGERS = """
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
    """A migration that the database refused, or one that is missing."""


@dataclass(frozen=True)
class MigrationState:
    """Ids of the migrations that are applied and of those that wait, in order. Those that were changed since they
    were applied are among the applied ones."""

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
    """The folder of the schemas' folders."""
    return project_file("sql") / "migrations"


def apply_migrations(
    url: str, directory: Path | None = None, log: Callable[[str], None] = lambda line: None
) -> list[str]:
    """Apply what is pending and return its ids; nothing pending is no work and writes nothing.

    Two callers at once are safe: the second waits and finds nothing left to do. A migration and the note that
    it is applied are one transaction: whatever stops it leaves the database as the migration before made it.
    One that waits for a lock gives way after a moment and tries again; `log` is told who holds it.
    """
    state = migration_state(url, directory)
    if state.changed:
        raise MigrationError(
            f"Migration {state.changed[0]} is not the one that was applied: its file has been changed since.",
            "Restore the file; what is to change goes into a new migration.",
        )
    if not state.pending:
        return []
    with connect(url, autocommit=True) as conn:
        conn.execute("select pg_advisory_lock(%s)", [_ADVISORY_LOCK])
        noted = _noted(conn)
        migrations = _migrations(directory, noted)
        pending = [each for each in migrations if each.id not in noted]
        schemas = {"backfill", *(each.schema for each in pending)} - {""}
        _refuse_strangers(conn, schemas - {each.schema for each in migrations if each.id in noted})
        _create_schemas(conn, schemas)
        _apply_all(conn, url, pending, log)
        return [each.id for each in pending]


def migration_state(url: str, directory: Path | None = None) -> MigrationState:
    """What is applied and what waits. Only reads."""
    with connect(url, autocommit=True) as conn:
        noted = _noted(conn)
    found = _migrations(directory, noted)
    return MigrationState(
        applied=[each.id for each in found if each.id in noted],
        pending=[each.id for each in found if each.id not in noted],
        changed=[each.id for each in found if noted.get(each.id, each.digest) != each.digest],
    )


def require_migrations(url: str, directory: Path | None = None) -> None:
    """Raise `MigrationError` unless everything is applied."""
    pending = migration_state(url, directory).pending
    if pending:
        more = f" and {len(pending) - 1} more" if len(pending) > 1 else ""
        raise MigrationError(f"The database lacks migration {pending[0]}{more}.", "Run: backfills migrate")


def apply_roles(url: str) -> None:
    """Create the roles that are missing and grant what each may do, in one transaction. May be run again."""
    with connect(url, autocommit=True) as conn:
        try:
            conn.execute((project_file("sql") / "roles.sql").read_bytes())
        except psycopg.Error as error:
            raise NotUsableError(
                f"sql/roles.sql was refused: {error.diag.message_primary or error}. Nothing of it is applied.",
                "Run it as a superuser, or as a role that may create roles and owns what is there.",
            ) from error


def _migrations(directory: Path | None, noted: Collection[str]) -> list[_Migration]:
    """Those that are wanted, or were once: a domain that is switched off again keeps what it has."""
    root = directory or migrations_dir()
    files = sorted(root.rglob("*.sql"), key=lambda path: path.name)
    found = [_Migration(path, path.parent.name if path.parent != root else "") for path in files]
    unwanted = schemas_of({*DOMAINS, OPERATIONS}) - schemas_of(switched_on())
    return [each for each in found if each.schema not in unwanted or each.id in noted]


def _noted(conn: Connection) -> dict[str, str]:
    """The digests of what is applied, by id."""
    if conn.execute("select to_regclass('backfill.schema_migrations')").fetchone() == (None,):
        return {}
    return dict(conn.execute("select migration_id, digest from backfill.schema_migrations").fetchall())


def _refuse_strangers(conn: Connection, schemas: set[str]) -> None:
    """Raise where one of the schemas that are about to be filled is somebody else's."""
    found = conn.execute(_STRANGERS, [list(schemas)]).fetchall()
    if found:
        what = "; ".join(f"{name} ({one}{f' and {more} more' if more else ''})" for name, one, more in found)
        raise MigrationError(
            f"The database has a schema of its own by the name of one of ours: {what}. Nothing was changed.",
            "Use a database that has none, or give that schema another name: alter schema … rename to …",
        )


def _create_schemas(conn: Connection, schemas: set[str]) -> None:
    """Those that are missing, and the table of what is applied."""
    for schema in sorted(schemas):
        # Not `if not exists`, which asks for the right to create one even where there is nothing to do.
        if conn.execute("select to_regnamespace(quote_ident(%s))", [schema]).fetchone() == (None,):
            conn.execute(sql.SQL("create schema {}").format(sql.Identifier(schema)))
    if conn.execute("select to_regclass('backfill.schema_migrations')").fetchone() == (None,):
        conn.execute(_NOTES)


def _apply_all(conn: Connection, url: str, pending: list[_Migration], log: Callable[[str], None]) -> None:
    conn.execute("select set_config('lock_timeout', %s, false)", [_LOCK_TIMEOUT])
    with suppress(psycopg.Error):  # not on every system: end the statement of a caller that was killed
        conn.execute("set client_connection_check_interval = '1s'")
    with Blockers(url, backend_pid(conn)) as blockers:
        for migration in pending:
            _apply_one(conn, migration, blockers, log)


def _apply_one(
    conn: Connection, migration: _Migration, blockers: Blockers, log: Callable[[str], None]
) -> None:
    """Apply and note it. `conn` is in autocommit and holds the advisory lock."""
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
            held = blockers.take()
            who = f"Its tables are held by {held or 'someone who is gone by now'}."
            if attempt == _LOCK_ATTEMPTS:
                raise _refused(migration, error, f"{who} Wait for that or end it, and try again.") from error
            log(f"{migration.path.name} gives way and tries again. {who}")
            time.sleep(0.5)
        except psycopg.Error as error:
            raise _refused(migration, error, "Mend the cause, then run: backfills migrate") from error


def _refused(migration: _Migration, error: psycopg.Error, hint: str) -> MigrationError:
    diagnosis = error.diag
    message = ". ".join(part for part in (diagnosis.message_primary, diagnosis.message_detail) if part)
    said = f"Migration {migration.path.name} failed: {message or error}."
    return MigrationError(said, f"Nothing of it is applied. {hint}")
