"""The columns of an import file, and mapping headers to them. Pure. Not here: reading the header row (`header`)."""

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from difflib import get_close_matches

from dagster_backfills.domains.kintell.file.records import INVISIBLE
from dagster_backfills.errors import UserError

REQUIRED = ("session_id", "session_type", "participant_email", "volunteer_email", "date", "duration_min")
OPTIONAL = ("rating", "feedback_text", "language_level")
KNOWN = REQUIRED + OPTIONAL
ROLES = ("participant", "volunteer")
ADDRESSES = ("participant_email", "volunteer_email")  # in the order of ROLES
# The columns that an error file adds.
ROW, MESSAGE, RAW = "_error_row", "_error_message", "_error_raw"
SUGGESTION = "_error_suggestion"  # only in a workbook
OURS = (ROW, MESSAGE, SUGGESTION, RAW)
LEFT_OUT = "-"  # the column of a header that the user mapped to nothing


def column_name(header: str) -> str:
    """The normalized name of a header: `Session Id`, `session-id` and `SessionId` become `session_id`."""
    name = header.strip(INVISIBLE)
    plain, split = (
        re.sub(r"[\s_-]+", "_", text.lower()) for text in (name, re.sub(r"(?<=[a-z])(?=[A-Z])", "_", name))
    )
    return split if split in KNOWN else plain


@dataclass(frozen=True)
class HeaderMapping:
    """The user's mapping from normalized header names to columns. `origin` tells people where it comes from."""

    columns: Mapping[str, str] = field(default_factory=dict)
    origin: str = ""

    def names(self, headers: Sequence[str]) -> tuple[str, ...]:
        """The column of each header, or its normalized name."""
        return tuple(self.columns.get(name, name) for name in map(column_name, headers))


MappingLookup = Callable[[Sequence[str]], HeaderMapping]


def closest_match(name: str, known: Mapping[str, str]) -> str:
    """`; X comes closest` for the closest of the known names, shown as its text. Empty if none is close."""
    return "".join(f"; `{known[match]}` comes closest" for match in get_close_matches(name, known, 1))


def parse_pairs(texts: Iterable[str]) -> dict[str, str]:
    """Parse texts like `Kennung=session_id`. `check_mapping` validates the result."""
    pairs: dict[str, str] = {}
    for text in texts:
        header, equals, column = text.rpartition("=")
        if not equals or not column_name(header):
            raise UserError(
                f"{text} is not a mapping", hint='Use "HEADER=column", for example "Kennung=session_id".'
            )
        pairs[header] = column
    return pairs


def check_mapping(pairs: Mapping[str, str]) -> dict[str, str]:
    """The mapping by normalized header name. Raises `UserError` for an unknown column or one that is mapped twice."""
    columns = {name: name for name in KNOWN}
    mapping: dict[str, str] = {}
    for header, column in pairs.items():
        target = column_name(column) or LEFT_OUT
        if target not in (*KNOWN, LEFT_OUT):
            raise UserError(
                f"There is no column {column} to map {header} to{closest_match(target, columns)}",
                hint=f"The columns: {', '.join(KNOWN)}. An empty column ignores the header.",
            )
        if target in mapping.values() and target != LEFT_OUT:
            raise UserError(f"{column} is mapped more than once", hint="Map only one header to it.")
        mapping[column_name(header)] = target
    return mapping
