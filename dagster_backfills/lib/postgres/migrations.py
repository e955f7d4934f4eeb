"""Applying `sql/migrations` to a database, with yoyo. Not here: what the migrations say."""

from dataclasses import dataclass
from pathlib import Path

import psycopg

_ADVISORY_LOCK = 7_204_431_118  # any constant; names "the migrations of this project" within a database


@dataclass(frozen=True)
class MigrationState:
    """Ids of the migrations that are applied and of those that wait, in order."""

    applied: list[str]
    pending: list[str]


def migrations_dir() -> Path:
    """The folder of `NNNN_*.sql`: beside the package in a checkout, inside it in an installed wheel."""
    package = Path(__file__).resolve().parents[2]
    inside = package / "sql" / "migrations"
    return inside if inside.is_dir() else package.parent / "sql" / "migrations"


def apply_migrations(url: str) -> list[str]:
    """Apply what is pending and return its ids; nothing pending is no work.

    Two callers at once are safe: the second waits and finds nothing left to do. Each migration is one
    transaction, so one that fails leaves the database as the one before it made it.
    """
    with psycopg.connect(url, autocommit=True) as guard:
        guard.execute("select pg_advisory_lock(%s)", [_ADVISORY_LOCK])
        backend, migrations = _open(url)
        with backend:
            # Only the holder of the advisory lock comes here, so yoyo's own lock row can only be a dead one's.
            backend.break_lock()
            pending = backend.to_apply(migrations)
            ids = [m.id for m in pending]
            if ids:
                backend.apply_migrations(pending)
        return ids


def migration_state(url: str) -> MigrationState:
    """What is applied and what waits. Changes nothing but yoyo's own bookkeeping tables."""
    backend, migrations = _open(url)
    with backend:
        pending = {m.id for m in backend.to_apply(migrations)}
        return MigrationState(
            applied=[m.id for m in migrations if m.id not in pending],
            pending=[m.id for m in migrations if m.id in pending],
        )


def _open(url: str):
    from yoyo import get_backend, read_migrations

    scheme, rest = url.split("://", 1)
    backend = get_backend(f"postgresql+psycopg://{rest}", migration_table="backfill_migrations")
    return backend, read_migrations(str(migrations_dir()))
