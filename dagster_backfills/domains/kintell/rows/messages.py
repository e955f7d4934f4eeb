"""Every message about a value of a row: how it begins, which column it blames, and what may be suggested instead. Not
here: when a value is bad (`rules`), and what is wrong with a row as a whole (`file`).
"""

import re
from collections.abc import Callable, Mapping
from enum import Enum
from typing import NamedTuple

from dagster_backfills.domains.kintell.file.columns import KNOWN
from dagster_backfills.domains.kintell.rows.values import (
    guess_address,
    guess_date,
    guess_level,
    guess_number,
    guess_session_type,
)

SHOWN = 200  # characters of a value that a message quotes


class Message(Enum):
    """One message. The value that it quotes stands behind a colon; `suggest` makes a guess of that."""

    MISSING_ID = "Missing session_id", "session_id"
    INVALID_ID = "Invalid session_id", "session_id"
    SESSION_TYPE = "Unknown session type", "session_type", guess_session_type
    PARTICIPANT_ADDRESS = "Invalid email format", "participant_email", guess_address
    VOLUNTEER_ADDRESS = "Invalid email format", "volunteer_email", guess_address
    NO_PARTICIPANT = "Participant not found", "participant_email"
    NO_VOLUNTEER = "Volunteer not found", "volunteer_email"
    DATE = "Invalid date format", "date", guess_date
    DURATION = "Invalid duration", "duration_min", guess_number
    RATING = "Invalid rating", "rating", guess_number
    FEEDBACK = "Invalid feedback text", "feedback_text"
    LANGUAGE_LEVEL = "Invalid language level", "language_level", guess_level
    TWICE = "Duplicate session_id in file", "session_id"
    SAME_KEY = "Duplicate key value violates unique constraint", "session_id"

    def __init__(self, says: str, column: str, suggest: Callable[[str], str] = lambda _: "") -> None:
        self.says, self.column, self.suggest = says, column, suggest

    def about(self, value: str) -> str:
        """The message about a value."""
        return f"{self.says}: {shown_text(value)}"


class Reject(NamedTuple):
    """A row that is not imported. `values` are its fields as they stood in the file; of one that is not `replayable`,
    which could not be split or decoded, its whole text is the only one."""

    row_number: int
    message: str
    values: list[str]
    replayable: bool


NOT_FOUND = {"participant": Message.NO_PARTICIPANT, "volunteer": Message.NO_VOLUNTEER}
# Where the next of a row's messages begins: a value may have a semicolon too.
_BEGINNINGS = [each.says + ": " * (each is not Message.MISSING_ID) for each in Message]
_NEXT = re.compile(f"; (?={'|'.join(map(re.escape, _BEGINNINGS))})")


def messages(joined: str) -> list[str]:
    """A row's messages, one by one."""
    return _NEXT.split(joined)


def kind_of(message: str) -> str:
    """A message without the value that it quotes."""
    return message.split(": ", 1)[0]


def blamed(joined: str, fields: Mapping[str, str]) -> dict[str, Message]:
    """The columns whose values a row's messages are about, in the file's usual order."""
    found: dict[str, Message] = {}
    for part in messages(joined):
        told = [each for each in Message if part.startswith(each.says)]
        said = part.partition(": ")[2].casefold()
        named = [each for each in told if said and fields.get(each.column, "").strip().casefold() == said]
        found |= {each.column: each for each in named or told}
    return {name: found[name] for name in KNOWN if name in found}


def shown_text(value: str) -> str:
    """A value as messages quote it: a long one is cut."""
    return value if len(value.encode()) <= SHOWN else value[:SHOWN] + "…"
