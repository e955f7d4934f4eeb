"""A declaration with a mistake: what stands for it, so that the project's others go on; and names that two can't have.

Whoever checks (`dg check defs`, `dagster definitions validate`) is given the error itself.
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
_taken: tuple[Any, dict[str, str]] = (None, {})  # of the project that is being loaded


class Mistaken(dg.Component):
    """Stands for a declaration that can't be loaded: one asset that says why, and fails when it is asked for."""

    def __init__(self, error: UserError) -> None:
        self.error = error

    def build_defs(self, context: dg.ComponentLoadContext) -> dg.Definitions:
        return in_place_of(Path(context.path), self.error)


def in_place_of(place: Path, error: UserError) -> dg.Definitions:
    """What stands for a declaration, or for code that needs it. Raises the error where definitions are checked."""
    if sys.argv[1:3] in _CHECKS:
        raise error
    parts = place.with_suffix("").parts
    below = parts[::-1].index("defs") if "defs" in parts else 1
    name = re.sub(r"\W", "_", "_".join(parts[-below:]))
    logging.getLogger("dagster.backfills").error("%s is left out: %s", name, error)

    @dg.asset(
        name=f"{name}_declaration",
        group_name="mistaken_backfills",
        description=f"`{name}` is left out because its declaration has a mistake: {error}",
        metadata={"mistake": str(error)},
        kinds={"postgres"},
    )
    def declaration() -> None:
        raise dg.Failure(str(error), allow_retries=False)

    return dg.Definitions(assets=[declaration])


def take(tree: Any, owner: str, things: Sequence[str]) -> None:
    """Take these for one declaration of a project. Raises UserError for the first that another has."""
    global _taken
    if _taken[0] is not tree:
        _taken = (tree, {})
    taken = _taken[1]
    for thing in things:
        other = taken.get(thing, owner)
        if other != owner:
            raise UserError(
                f"{owner}: {thing} is another declaration's already: {other}.",
                hint="Two backfills that write the same table would undo each other's work. Where a name is taken, "
                "choose another.",
            )
    taken.update(dict.fromkeys(things, owner))
