"""Where files lie: those that ship with the project, and the folder it writes to. Not: what is in them."""

import os
from pathlib import Path

_PACKAGE = Path(__file__).resolve().parent


def project_file(name: str) -> Path:
    """A file or folder that ships with the project: inside an installed package, beside it in a checkout."""
    inside = _PACKAGE / name
    return inside if inside.exists() else _PACKAGE.parent / name


def in_checkout() -> bool:
    """Whether the package stands in a checkout of this repository, and not where a wheel was installed."""
    return (_PACKAGE.parent / "pyproject.toml").is_file()


def state_dir() -> Path:
    """`BACKFILLS_HOME`; else `.backfills` in the checkout, or if there is none in the working directory."""
    given = os.environ.get("BACKFILLS_HOME", "").strip()
    if given:
        return Path(given).expanduser().resolve()
    return (_PACKAGE.parent if in_checkout() else Path.cwd()) / ".backfills"
