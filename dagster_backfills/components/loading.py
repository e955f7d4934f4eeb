"""Loading declarations outside of Dagster: for commands, tests and the domains' own code."""

from contextlib import suppress
from functools import cache
from pathlib import Path

from dagster_backfills.components.backfill import Backfill
from dagster_backfills.components.postgres_backfill import TYPE, read
from dagster_backfills.dagster.project import OURS, project_defs
from dagster_backfills.dagster.resource import PostgresResource
from dagster_backfills.domain_switches import disabled_domains
from dagster_backfills.engine.declared.yaml_mistakes import documents
from dagster_backfills.errors import UserError
from dagster_backfills.postgres.embedded import resolve_database_url


@cache
def declared(folder: Path) -> Backfill:
    """The backfill that a folder declares. Raises UserError if there is none or the declaration has a mistake."""
    file = folder / "defs.yaml"
    if not file.is_file():
        raise UserError(f"{folder} declares no backfill: it has no defs.yaml.")
    return read(file).at(folder)


def declared_folders(defs: Path) -> list[Path]:
    """The folders below a definitions folder that declare a backfill, except those of disabled domains."""
    off = disabled_domains() if defs == OURS else frozenset()
    files = [
        file
        for file in sorted(defs.rglob("defs.yaml"))
        if file.relative_to(defs).parts[0].partition("_")[0] not in off
    ]
    return [file.parent for file in files if "dagster_backfills" in file.read_text(encoding="utf-8")]


def declared_by_name(defs: Path) -> dict[str, Path]:
    """The same folders by backfill name, also of declarations with a mistake. The default is the folder's name."""
    folders = {}
    for folder in declared_folders(defs):
        try:
            folders[read(folder / "defs.yaml").name or folder.name] = folder
        except UserError:
            folders[_name_in(folder / "defs.yaml") or folder.name] = folder
    return folders


def databases(start: Path) -> list[str | None]:
    """The variables of the project's databases: None for DATABASE_URL first, then those that declarations name."""
    named: dict[str | None, None] = {None: None}
    for folder in declared_folders(project_defs(start)):
        with suppress(UserError):
            named[read(folder / "defs.yaml").database] = None
    return list(named)


def _name_in(file: Path) -> str:
    """The name in a declaration that has a mistake, or "" if it has none that can be read."""
    try:
        names = [(each.attributes or {}).get("name") for each in documents(file) if each.type == TYPE]
    except UserError:
        return ""
    return next((name for name in names if isinstance(name, str)), "")


def postgres_of(backfill: Backfill) -> PostgresResource:
    """The backfill's database: the one whose URL is in the variable that the declaration names, or in DATABASE_URL."""
    return PostgresResource(url=resolve_database_url(backfill.declared.database))
