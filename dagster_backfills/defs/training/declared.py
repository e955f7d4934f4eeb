"""This folder's declaration, for the domain's own code."""

from pathlib import Path

from dagster_backfills.components.loading import declared

TRAINING = declared(Path(__file__).parent)
COMPLETIONS, PROGRESS = TRAINING.declared.tables
