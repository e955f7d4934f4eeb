"""The domain's named statements, loaded once from its `.sql` files."""

from pathlib import Path
from typing import Any

from dagster_backfills.postgres.statements import load_statements

_FILES = [Path(__file__).with_name(name) for name in ("queries.sql", "rollback.sql", "events.sql")]


def statements() -> Any:
    """Callables by statement name: `statements().count_users(conn)`; `.sql` is the text."""
    return load_statements(*_FILES)
