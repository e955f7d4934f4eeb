"""Reading declarations outside of Dagster's own loading: for commands, tests and what a domain adds to its own."""

from functools import cache
from pathlib import Path

from dagster_backfills.components.building import Backfill
from dagster_backfills.components.postgres_backfill import read
from dagster_backfills.errors import UserError


@cache
def declared(folder: Path) -> Backfill:
    """The backfill that a folder declares. Raises UserError where there is none, or it has a mistake."""
    file = folder / "defs.yaml"
    if not file.is_file():
        raise UserError(f"{folder} declares no backfill: it has no defs.yaml.")
    return read(file).at(folder)
