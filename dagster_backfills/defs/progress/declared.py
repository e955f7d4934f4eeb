"""This folder's declaration, for code that needs its table names and statements."""

from pathlib import Path

from dagster_backfills.components.loading import declared

PROGRESS = declared(Path(__file__).parent)
