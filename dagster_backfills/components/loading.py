"""Reading a declaration outside of Dagster's own loading: for commands, tests and what a domain adds to its own."""

from functools import cache
from pathlib import Path

import yaml

from dagster_backfills.components.building import Backfill
from dagster_backfills.components.postgres_backfill import PostgresBackfill
from dagster_backfills.lib.errors import UserError


@cache
def declared(folder: Path) -> Backfill:
    """The backfill that a folder declares. Raises UserError where there is none, or it has a mistake."""
    file = folder / "defs.yaml"
    if not file.is_file():
        raise UserError(f"{folder} declares no backfill: it has no defs.yaml.")
    attributes = yaml.safe_load(file.read_text(encoding="utf-8"))["attributes"]
    return PostgresBackfill.model_validate(attributes).at(folder)
