"""Five data-backfill systems that write into Postgres through Dagster."""
