"""The named statements of `queries.sql`."""

from pathlib import Path

from dagster_backfills.postgres.statements import load_queries


def statement(name: str) -> str:
    """One statement with psycopg's binds."""
    return load_queries(Path(__file__).with_name("queries.sql"))[name]
