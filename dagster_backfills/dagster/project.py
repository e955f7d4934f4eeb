"""The Dagster project around a folder: where its definitions stand, which module has them.

Not here: which of them are declared backfills (`components/loading`).
"""

import os
import sys
import tomllib
from pathlib import Path

import dagster_backfills

OURS = Path(dagster_backfills.__file__).parent / "defs"


def project_defs(start: Path) -> Path:
    """The folder of definitions of the Dagster project that `start` is in; of this package, where it is in none."""
    found = _project(start)
    return found[0] if found else OURS


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
                    defs = root / module.replace(".", "/") / "defs"
                    if defs.is_dir():
                        return defs, root, project.get("code_location_target_module", f"{module}.definitions")
    return None
