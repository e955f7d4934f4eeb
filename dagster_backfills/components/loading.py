"""Reading declarations outside of Dagster's own loading: for commands, tests and what a domain adds to its own."""

import tomllib
from functools import cache
from pathlib import Path

import dagster_backfills
from dagster_backfills.components.building import Backfill
from dagster_backfills.components.postgres_backfill import TYPE, read
from dagster_backfills.domain_switches import switched_off
from dagster_backfills.errors import UserError, close_to


@cache
def declared(folder: Path) -> Backfill:
    """The backfill that a folder declares. Raises UserError where there is none, or it has a mistake."""
    file = folder / "defs.yaml"
    if not file.is_file():
        raise UserError(f"{folder} declares no backfill: it has no defs.yaml.")
    return read(file).at(folder)


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
    """The folders below one of definitions that declare a backfill, but for those of domains that are switched off."""
    off = switched_off() if defs == Path(dagster_backfills.__file__).parent / "defs" else frozenset()
    files = [
        file
        for file in sorted(defs.rglob("defs.yaml"))
        if file.relative_to(defs).parts[0].partition("_")[0] not in off
    ]
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
