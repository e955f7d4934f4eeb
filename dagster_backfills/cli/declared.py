"""What commands on declared backfills share: the project's declarations, and the database of each."""

import os
import tomllib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psycopg

import dagster_backfills
from dagster_backfills.components.building import Backfill
from dagster_backfills.components.loading import declared
from dagster_backfills.components.postgres_backfill import TYPE, read
from dagster_backfills.errors import NotUsableError, UserError, close_to
from dagster_backfills.postgres.embedded import resolve_database_url
from dagster_backfills.postgres.url import checked_url


def project_defs(start: Path) -> Path:
    """The folder of definitions of the Dagster project that `start` is in; of this package, where it is in none."""
    for folder in (start, *start.parents):
        file = folder / "pyproject.toml"
        if file.is_file():
            project = (
                tomllib.loads(file.read_text(encoding="utf-8"))
                .get("tool", {})
                .get("dg", {})
                .get("project", {})
            )
            root = project.get("root_module", "").replace(".", "/")
            found = [
                at / root / "defs"
                for at in (folder / "src", folder)
                if root and (at / root / "defs").is_dir()
            ]
            if found:
                return found[0]
    return Path(dagster_backfills.__file__).parent / "defs"


def declared_folders(defs: Path) -> list[Path]:
    """The folders below one of definitions that declare a backfill."""
    files = sorted(defs.rglob("defs.yaml"))
    return [file.parent for file in files if TYPE in file.read_text(encoding="utf-8")]


def backfill_named(name: str, start: Path | None = None) -> Backfill:
    """The project's backfill of that name. Raises UserError where there is none, or it has a mistake."""
    found: dict[str, Path] = {}
    defs = project_defs(start or Path.cwd())
    for folder in declared_folders(defs):
        if folder.name == name:
            return declared(folder)
        found[read(folder / "defs.yaml").name or folder.name] = folder
    if name in found:
        return declared(found[name])
    raise UserError(f"There is no backfill {name!r} in {defs}.", close_to(name, found))


@contextmanager
def database_of(variable: str | None) -> Iterator[psycopg.Connection[Any]]:
    """The database that a declaration names, for the time of one command; one that it does not name is DATABASE_URL."""
    if variable is not None and not os.environ.get(variable):
        raise NotUsableError(f"{variable} is not set, and a declaration names it as its database's URL.")
    url = checked_url(os.environ[variable], variable) if variable else resolve_database_url()
    with psycopg.connect(url, application_name="backfills", connect_timeout=10) as conn:
        yield conn
