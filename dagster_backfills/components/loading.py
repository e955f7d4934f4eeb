"""Reading a declaration outside of Dagster's own loading: for commands, tests and what a domain adds to its own."""

from functools import cache
from pathlib import Path

import yaml

from dagster_backfills.components.building import Backfill
from dagster_backfills.components.postgres_backfill import PostgresBackfill
from dagster_backfills.errors import UserError

TYPE = "dagster_backfills.PostgresBackfill"


@cache
def declared(folder: Path) -> Backfill:
    """The backfill that a folder declares. Raises UserError where there is none, or it has a mistake."""
    file = folder / "defs.yaml"
    if not file.is_file():
        raise UserError(f"{folder} declares no backfill: it has no defs.yaml.")
    for document in yaml.safe_load_all(file.read_text(encoding="utf-8")):
        if document["type"] == TYPE:
            return PostgresBackfill.model_validate(document["attributes"]).at(folder)
    raise UserError(f"{file} declares no {TYPE}.")
