"""Backfills as declarations: what a `defs.yaml` may say, and the Dagster definitions that follow from it."""
