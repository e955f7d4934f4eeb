"""The named statements of `queries.sql`."""

from pathlib import Path

from dagster_backfills.postgres.statements import load_statements

STATEMENTS = load_statements(Path(__file__).with_name("queries.sql"))
