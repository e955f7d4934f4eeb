"""The domain's named SQL statements."""

from pathlib import Path

from dagster_backfills.postgres.statements import load_statements

STATEMENTS = load_statements(
    *(Path(__file__).with_name(name) for name in ("queries.sql", "rollback.sql", "events.sql"))
)
