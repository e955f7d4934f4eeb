"""Which of some things a person means: by its id, by how the id begins, or by its name. And how many, in words."""

import unicodedata
from collections.abc import Mapping
from difflib import get_close_matches

from dagster_backfills.errors import UserError

_NAMED = 5


def the_one(wanted: str, there: Mapping[str, str | None], what: str, hint: str = "") -> str:
    """The id that is meant, of ids and their names (None where there are none).

    Raises UserError where several fit, naming them, and where none does, naming what comes close.
    """
    folded = fold(wanted)
    ways = (
        (each for each in there if each == wanted),
        (each for each, name in there.items() if name and folded == fold(name)),
        (each for each in there if wanted and each.startswith(wanted)),
        (each for each, name in there.items() if wanted and fold(name or "").startswith(folded)),
    )
    for way in ways:
        found = list(way)
        if len(found) == 1:
            return found[0]
        if found:
            raise UserError(f"{len(found):,} {what}s fit {wanted!r}.", f"Say which: {_listed(found, there)}.")
    by_spelling: dict[str, str] = {}
    for each, name in there.items():
        by_spelling |= {fold(name or each): each, fold(each): each}
    close = [by_spelling[each] for each in get_close_matches(folded, by_spelling, n=_NAMED, cutoff=0.5)]
    if close:
        hint = f"Did you mean {_listed(list(dict.fromkeys(close)), there)}?"
    elif not hint:
        hint = f"There are {_listed(list(there), there)}." if there else "There are none."
    raise UserError(f"There is no {what} {wanted!r}.", hint)


def fold(text: str) -> str:
    """The text without its case, in any alphabet."""
    return unicodedata.normalize("NFC", text).casefold()


def labelled(key: str, name: str | None) -> str:
    """A key, and its name where it has one."""
    return f"{key} ({name})" if name else key


def counted(number: int, noun: str) -> str:
    """`1 run`, `2 runs`."""
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


def _listed(found: list[str], there: Mapping[str, str | None]) -> str:
    said = [labelled(each, there[each]) for each in found[:_NAMED]]
    return ", ".join(said) + (", …" if len(found) > _NAMED else "")
