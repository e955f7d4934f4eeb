"""A placeholder for a declaration with a mistake, so that the project's others still load; and duplicate names.

`dg check defs` and `dagster definitions validate` raise the error instead.
"""

import logging
import re
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import dagster as dg

from dagster_backfills.errors import UserError

_CHECKS = (["check", "defs"], ["definitions", "validate"])
_taken: tuple[Any, dict[str, str]] = (None, {})  # the project that is being loaded, and its names by owner


class Mistaken(dg.Component):
    """Replaces a declaration that can't be loaded by one asset that describes the mistake and fails if materialized."""

    def __init__(self, error: UserError) -> None:
        self.error = error

    def build_defs(self, context: dg.ComponentLoadContext) -> dg.Definitions:
        return in_place_of(Path(context.path), self.error)


def in_place_of(place: Path, error: UserError) -> dg.Definitions:
    """The placeholder for a declaration or for code that needs it. Raises the error if definitions are checked."""
    if sys.argv[1:3] in _CHECKS:
        raise error
    parts = place.with_suffix("").parts
    below = parts[::-1].index("defs") if "defs" in parts else 1
    name = re.sub(r"\W", "_", "_".join(parts[-below:]))
    logging.getLogger("dagster.backfills").error("%s is not loaded: %s", name, error)

    @dg.asset(
        name=f"{name}_declaration",
        group_name="mistaken_backfills",
        description=f"`{name}` is not loaded because its declaration has a mistake: {error}",
        metadata={"mistake": str(error)},
        kinds={"postgres"},
    )
    def declaration() -> None:
        raise dg.Failure(str(error), allow_retries=False)

    return dg.Definitions(assets=[declaration])


def claim(tree: Any, owner: str, claims: Sequence[str]) -> None:
    """Claim names and tables for one declaration of a project. Raises UserError if another declaration has one."""
    global _taken
    if _taken[0] is not tree:
        _taken = (tree, {})
    taken = _taken[1]
    for each in claims:
        other = taken.get(each, owner)
        if other != owner:
            raise UserError(
                f"{owner}: {each} is already used by another declaration: {other}.",
                hint="Choose another name. Two backfills can't write the same table: each would overwrite the other.",
            )
    taken.update(dict.fromkeys(claims, owner))
