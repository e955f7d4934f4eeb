"""The declaration of this folder, for what the domain adds to it."""

from pathlib import Path

from dagster_backfills.components.loading import declared

TRAINING = declared(Path(__file__).parent)
COMPLETIONS, PROGRESS = TRAINING.declared.tables
