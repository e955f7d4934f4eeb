"""Resolving what a user typed (an ID, a unique prefix of an ID, or a name), and wording counts and labels."""

import unicodedata
from collections.abc import Mapping, Sequence

from dagster_backfills.errors import UserError, similar

_LISTED = 5


def resolve_id(text: str, known: Mapping[str, str | None], what: str, hint: str = "") -> str:
    """The ID that `text` refers to. `known` maps each ID to its name, or to None.

    Tries the ID, the name, a prefix of the ID and a prefix of the name. Raises UserError if several IDs match, listing
    them, or if none matches, listing similar ones.
    """
    folded = fold(text)
    candidates = (
        (each for each in known if each == text),
        (each for each, name in known.items() if name and folded == fold(name)),
        (each for each in known if text and each.startswith(text)),
        (each for each, name in known.items() if text and fold(name or "").startswith(folded)),
    )
    for candidate in candidates:
        ids = list(candidate)
        if len(ids) == 1:
            return ids[0]
        if ids:
            raise UserError(f"{len(ids):,} {what}s match {text!r}.", f"Choose one: {_listed(ids, known)}.")
    by_spelling: dict[str, str] = {}
    for each, name in known.items():
        by_spelling |= {fold(name or each): each, fold(each): each}
    close = [by_spelling[each] for each in similar(folded, sorted(by_spelling), _LISTED)]
    if close:
        hint = f"Did you mean {_listed(list(dict.fromkeys(close)), known)}?"
    elif not hint:
        hint = f"There are {_listed(list(known), known)}." if known else "There are none."
    raise UserError(f"There is no {what} {text!r}.", hint)


def fold(text: str) -> str:
    """The text normalized and case-folded, for comparison in any alphabet."""
    return unicodedata.normalize("NFC", text).casefold()


def labelled(key: str, name: str | None) -> str:
    """A key, followed by its name if it has one."""
    return f"{key} ({name})" if name else key


def counted(number: int, noun: str) -> str:
    """`1 run`, `2 runs`."""
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


def first_few(texts: Sequence[str]) -> str:
    """The first of these texts in a line, with an ellipsis if there are more."""
    return ", ".join(texts[:_LISTED]) + (", …" if len(texts) > _LISTED else "")


def _listed(keys: list[str], names: Mapping[str, str | None]) -> str:
    return first_few([labelled(key, names[key]) for key in keys[: _LISTED + 1]])
