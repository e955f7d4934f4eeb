"""The Dagster project that contains a folder: its definitions folder, its module, and loading its definitions.

Not here: finding declared backfills in it (`components/loading`).
"""

import os
import sys
import tomllib
from contextlib import AbstractContextManager
from pathlib import Path
from pkgutil import resolve_name

import dagster as dg

from dagster_backfills.dagster.mistaken import Mistaken
from dagster_backfills.dagster.private_loader import replacing_broken
from dagster_backfills.engine.declared.yaml_mistakes import Places, documents
from dagster_backfills.errors import UserError, located
from dagster_backfills.state import project_file

OURS = project_file("defs")


def project_defs(start: Path) -> Path:
    """The definitions folder of the Dagster project that contains `start`; this package's if there is none.

    Adds the project to the import path.
    """
    project_module(start)
    project = _project(start)
    return project[0] if project else OURS


def defs_to_write_in(start: Path) -> Path:
    """The definitions folder for writing a new file. It may not exist yet. Raises UserError outside of a project."""
    project = _project(start)
    if project is None:
        raise UserError(
            f"{start} is not in a Dagster project: no pyproject.toml in it or in a parent folder has a "
            "[tool.dg.project] section whose `root_module` is an existing package.",
            "Change to your project's folder. To create a project, see docs/how-to/your-own-backfill.md",
        )
    return project[0]


def project_module(start: Path) -> str | None:
    """The module of the project's definitions, after adding it to the import path; None for this package's own."""
    project = _project(start)
    if project is None or project[0] == OURS:
        return None
    _, root, module = project
    if str(root) not in sys.path:
        sys.path.insert(0, str(root))
        os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, [str(root), os.environ.get("PYTHONPATH")]))
    return module


def _project(start: Path) -> tuple[Path, Path, str] | None:
    """The project's definitions folder, its import root and its definitions module, from its `pyproject.toml`."""
    for folder in (start, *start.parents):
        if (folder / "pyproject.toml").is_file():
            settings = tomllib.loads((folder / "pyproject.toml").read_text(encoding="utf-8"))
            project = settings.get("tool", {}).get("dg", {}).get("project", {})
            if module := project.get("root_module"):
                for root in (folder / "src", folder):
                    package = root / module.replace(".", "/")
                    if package.is_dir():
                        target = project.get("code_location_target_module", f"{module}.definitions")
                        return package / "defs", root, target
    return None


def load_from_defs_folder(*, path_within_project: Path) -> dg.Definitions:
    """Like `dagster.load_from_defs_folder`, but a `defs.yaml` that can't be loaded does not affect the others."""
    with mistakes_set_aside():
        return dg.ComponentTree.for_project(path_within_project).build_defs()


def mistakes_set_aside() -> AbstractContextManager[None]:
    """In this block, Dagster loads a `Mistaken` component for a `defs.yaml` or code that it can't load.

    Not here: mistakes in the attributes, which the component itself reports.
    """
    return replacing_broken(_replacement)


def _replacement(path: Path, error: Exception) -> dg.Component | None:
    if not isinstance(error, UserError):
        mistakes = [_mistake_in(file) for file in path.glob("defs.y*ml")]
        return Mistaken(mistakes[0]) if mistakes and mistakes[0] else None
    return Mistaken(error)


def _mistake_in(file: Path) -> UserError | None:
    try:
        for document in documents(file):
            with located(Places(file, below=()).of("type")):
                _require_component(document.type)
    except UserError as error:
        return error
    return None


def _require_component(name: str) -> None:
    module, _, rest = name.rpartition(".")
    if module.startswith("."):
        return  # relative to the file: Dagster's own error for the project's code is clear
    try:
        component = resolve_name(f"{module}:{rest}")
        if not (isinstance(component, type) and issubclass(component, dg.Component)):
            raise ValueError("it is not a component class")
    except (ImportError, AttributeError, ValueError) as error:
        hint = "`dg list components` lists them. This package's is dagster_backfills.PostgresBackfill."
        raise UserError(f"there is no component `{name}`: {error}.", hint) from error
