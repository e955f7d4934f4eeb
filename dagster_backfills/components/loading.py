"""Reading a declaration outside of Dagster's own loading: for commands, tests and what a domain adds to its own."""

from functools import cache
from pathlib import Path

import yaml

import dagster_backfills
from dagster_backfills.components.building import Backfill
from dagster_backfills.components.declaration import close_to
from dagster_backfills.components.postgres_backfill import PostgresBackfill
from dagster_backfills.errors import UserError

_DEFS = Path(dagster_backfills.__file__).parent / "defs"
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


def backfill_named(name: str, start: Path) -> Backfill:
    """The backfill of that name, of this package or below the folder `start`. Raises UserError where there is none."""
    found: dict[str, Backfill] = {}
    for defs in (_DEFS, start):
        for file in sorted(defs.rglob("defs.yaml")):
            if TYPE in file.read_text(encoding="utf-8"):
                backfill = declared(file.parent)
                found[backfill.name] = backfill
    if name not in found:
        raise UserError(f"There is no backfill {name!r}.", close_to(name, found))
    return found[name]
