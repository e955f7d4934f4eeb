"""The domain's named SQL statements."""

from pathlib import Path

from dagster_backfills.postgres.statements import load_queries


def statement(name: str) -> str:
    """One statement of `queries.sql`."""
    return load_queries(Path(__file__).with_name("queries.sql"))[name]
