"""The declaration of this folder, for what reads its tables' names and statements."""

from pathlib import Path

from dagster_backfills.components.loading import declared

PROGRESS = declared(Path(__file__).parent)
