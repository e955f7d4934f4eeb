"""Locations of files: those that ship with the project, and the state folder that it writes to."""

import os
from pathlib import Path

_PACKAGE = Path(__file__).resolve().parent


def project_file(name: str) -> Path:
    """A file or folder that ships with the project: inside the installed package, or beside it in a checkout."""
    inside = _PACKAGE / name
    return inside if inside.exists() else _PACKAGE.parent / name


def in_checkout() -> bool:
    """Whether the package runs from a checkout of this repository rather than from an installed wheel."""
    return (_PACKAGE.parent / "pyproject.toml").is_file()


def state_dir() -> Path:
    """`BACKFILLS_HOME` if set; else `.backfills` in the checkout, or in the working directory outside a checkout."""
    given = os.environ.get("BACKFILLS_HOME", "").strip()
    if given:
        return Path(given).expanduser().resolve()
    return (_PACKAGE.parent if in_checkout() else Path.cwd()) / ".backfills"
