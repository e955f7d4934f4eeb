"""Data backfills into Postgres that are planned, launched, watched and undone through Dagster."""

from dagster_backfills.components.postgres_backfill import PostgresBackfill

__all__ = ["PostgresBackfill"]
