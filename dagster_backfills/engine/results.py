"""Queries on the results of runs: progress, rows written, open failures."""

from pathlib import Path

from dagster_backfills.postgres.statements import load_statements

RESULTS = load_statements(Path(__file__).with_name("results.sql"))
