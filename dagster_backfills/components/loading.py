"""Reading declarations outside of Dagster's own loading: for commands, tests and what a domain adds to its own."""

import os
import sys
import tomllib
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

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
    for root, project in _projects(start):
        module = project.get("root_module", "").replace(".", "/")
        found = [at / module / "defs" for at in (root / "src", root) if (at / module / "defs").is_dir()]
        if module and found:
            return found[0]
    return Path(dagster_backfills.__file__).parent / "defs"


def project_module(start: Path) -> str | None:
    """The module of that project's definitions, importable from here on; None where they are this package's."""
    defs = project_defs(start)
    for root, project in _projects(start):
        if defs.is_relative_to(root) and defs != Path(dagster_backfills.__file__).parent / "defs":
            there = str(root / "src" if defs.is_relative_to(root / "src") else root)
            if there not in sys.path:
                sys.path.insert(0, there)
                os.environ["PYTHONPATH"] = os.pathsep.join(
                    filter(None, [there, os.environ.get("PYTHONPATH")])
                )
            return project.get("code_location_target_module") or f"{project['root_module']}.definitions"
    return None


def _projects(start: Path) -> Iterator[tuple[Path, dict[str, Any]]]:
    """The folders around `start` that are a Dagster project, and what `pyproject.toml` says of each."""
    for folder in (start, *start.parents):
        if (folder / "pyproject.toml").is_file():
            said = tomllib.loads((folder / "pyproject.toml").read_text(encoding="utf-8"))
            yield folder, said.get("tool", {}).get("dg", {}).get("project", {})


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
