"""The columns that a file may have, and which of them a header names. Pure. Not here: reading the header row."""

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from difflib import get_close_matches

from dagster_backfills.domains.kintell.file.records import INVISIBLE

REQUIRED = ("session_id", "session_type", "participant_email", "volunteer_email", "date", "duration_min")
OPTIONAL = ("rating", "feedback_text", "language_level")
KNOWN = REQUIRED + OPTIONAL
ROLES = ("participant", "volunteer")
ADDRESSES = ("participant_email", "volunteer_email")  # of the roles
# The columns that an error file adds.
ROW, MESSAGE, RAW = "_error_row", "_error_message", "_error_raw"
SUGGESTION = "_error_suggestion"  # in a workbook
OURS = (ROW, MESSAGE, SUGGESTION, RAW)
LEFT_OUT = "-"  # what a header stands for that a person leaves out


def column_name(header: str) -> str:
    """The name that a header stands for: `Session Id`, `session-id` and `SessionId` are `session_id`."""
    name = header.strip(INVISIBLE)
    plain, split = (
        re.sub(r"[\s_-]+", "_", text.lower()) for text in (name, re.sub(r"(?<=[a-z])(?=[A-Z])", "_", name))
    )
    return split if split in KNOWN else plain


@dataclass(frozen=True)
class Mapped:
    """What a person said that headers stand for, by their names. `origin`: when that was said."""

    columns: Mapping[str, str] = field(default_factory=dict)
    origin: str = ""

    def names(self, headers: Sequence[str]) -> tuple[str, ...]:
        """What the headers stand for."""
        return tuple(self.columns.get(name, name) for name in map(column_name, headers))


Mapper = Callable[[Sequence[str]], Mapped]


def closest(name: str, there: Mapping[str, str]) -> str:
    """`; X comes closest`, of texts by their names; nothing where none does."""
    return "".join(f"; `{there[near]}` comes closest" for near in get_close_matches(name, there, 1))
