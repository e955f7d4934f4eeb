"""The Dagster project around a folder: where its definitions stand, which module has them, and loading them.

Not here: which of them are declared backfills (`components/loading`).
"""

import os
import sys
import tomllib
from contextlib import AbstractContextManager
from pathlib import Path
from pkgutil import resolve_name

import dagster as dg

import dagster_backfills
from dagster_backfills.dagster.mistaken import Mistaken
from dagster_backfills.dagster.private_loader import standing_in
from dagster_backfills.errors import UserError, located
from dagster_backfills.yaml_mistakes import Places, documents

OURS = Path(dagster_backfills.__file__).parent / "defs"


def project_defs(start: Path) -> Path:
    """The folder of definitions of the Dagster project that `start` is in; of this package, where it is in none.

    What they import from their project can be imported from here on.
    """
    project_module(start)
    found = _project(start)
    return found[0] if found else OURS


def defs_to_write_in(start: Path) -> Path:
    """The same for whoever puts something there: it may not be made yet. Raises UserError outside of a project."""
    found = _project(start)
    if found is None:
        raise UserError(
            f"{start} is in no Dagster project: no pyproject.toml here or above names, as `root_module` below "
            "[tool.dg.project], a package that is there.",
            "Go to your project's folder. How to begin one: docs/how-to/your-own-backfill.md",
        )
    return found[0]


def project_module(start: Path) -> str | None:
    """The module of that project's definitions, importable from here on; None where they are this package's."""
    found = _project(start)
    if found is None or found[0] == OURS:
        return None
    _, root, module = found
    if str(root) not in sys.path:
        sys.path.insert(0, str(root))
        os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, [str(root), os.environ.get("PYTHONPATH")]))
    return module


def _project(start: Path) -> tuple[Path, Path, str] | None:
    """The project's definitions, the folder that they are imported from, and their module, by its `pyproject.toml`."""
    for folder in (start, *start.parents):
        if (folder / "pyproject.toml").is_file():
            said = tomllib.loads((folder / "pyproject.toml").read_text(encoding="utf-8"))
            project = said.get("tool", {}).get("dg", {}).get("project", {})
            if module := project.get("root_module"):
                for root in (folder / "src", folder):
                    package = root / module.replace(".", "/")
                    if package.is_dir():
                        target = project.get("code_location_target_module", f"{module}.definitions")
                        return package / "defs", root, target
    return None


def load_from_defs_folder(*, path_within_project: Path) -> dg.Definitions:
    """As Dagster's own of this name, but a `defs.yaml` that it can't load takes no other down."""
    with mistakes_set_aside():
        return dg.ComponentTree.for_project(path_within_project).build_defs()


def mistakes_set_aside() -> AbstractContextManager[None]:
    """While this lasts, Dagster loads something that says the mistake in place of a `defs.yaml` that it can't load.

    And in place of code that can't be imported for it. What is wrong in its attributes, its component says itself.
    """
    return standing_in(_instead)


def _instead(path: Path, error: Exception) -> dg.Component | None:
    if not isinstance(error, UserError):
        found = [_mistake_in(file) for file in path.glob("defs.y*ml")]
        return Mistaken(found[0]) if found and found[0] else None
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
        return  # from the file's own place: the project's code, which says itself what it lacks
    try:
        found = resolve_name(f"{module}:{rest}")
        if not (isinstance(found, type) and issubclass(found, dg.Component)):
            raise ValueError("it is something else")
    except (ImportError, AttributeError, ValueError) as error:
        hint = "`dg list components` shows what there is. Ours is dagster_backfills.PostgresBackfill."
        raise UserError(f"there is no component `{name}`: {error}.", hint) from error
