"""What became of runs, by the engine's own account: how far they are, what they wrote, and what they
could not write.
"""

from pathlib import Path

from dagster_backfills.postgres.statements import load_statements

RESULTS = load_statements(Path(__file__).with_name("results.sql"))
