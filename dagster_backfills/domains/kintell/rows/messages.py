"""Every message about a value: its text, the column it is about, and how to suggest a correction. Not here: when a
value is invalid (`rules`), and errors of a whole row (`file`).
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

SHOWN = 200  # characters of a value quoted in a message


class Message(Enum):
    """One message: `prefix`, then a colon and the invalid value. `suggest` guesses the intended value."""

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
    REPEATED_ID = "Duplicate session_id in file", "session_id"
    EXISTING_ID = "Duplicate key value violates unique constraint", "session_id"

    def __init__(self, prefix: str, column: str, suggest: Callable[[str], str] = lambda _: "") -> None:
        self.prefix, self.column, self.suggest = prefix, column, suggest

    def with_value(self, value: str) -> str:
        """The full message for a value."""
        return f"{self.prefix}: {shown_text(value)}"


class Reject(NamedTuple):
    """A rejected row. `values` are its fields as they were in the file. A row that could not be split or decoded is not
    `replayable`, and its whole text is the only value."""

    row_number: int
    message: str
    values: list[str]
    replayable: bool


NOT_FOUND = {"participant": Message.NO_PARTICIPANT, "volunteer": Message.NO_VOLUNTEER}
# Splits only before the beginning of a message, because a quoted value may contain a semicolon too.
_BEGINNINGS = [each.prefix + ": " * (each is not Message.MISSING_ID) for each in Message]
_NEXT = re.compile(f"; (?={'|'.join(map(re.escape, _BEGINNINGS))})")


def messages(joined: str) -> list[str]:
    """The joined messages of a row as a list."""
    return _NEXT.split(joined)


def message_kind(message: str) -> str:
    """A message without its value."""
    return message.split(": ", 1)[0]


def failing_columns(joined: str, fields: Mapping[str, str]) -> dict[str, Message]:
    """The columns that a row's messages are about, in template order, each with its message."""
    columns: dict[str, Message] = {}
    for part in messages(joined):
        candidates = [each for each in Message if part.startswith(each.prefix)]
        value = part.partition(": ")[2].casefold()
        # Both address columns share a message: prefer the column that has the quoted value.
        exact = [m for m in candidates if value and fields.get(m.column, "").strip().casefold() == value]
        columns |= {each.column: each for each in exact or candidates}
    return {name: columns[name] for name in KNOWN if name in columns}


def shown_text(value: str) -> str:
    """A value as quoted in messages. Long values are truncated."""
    return value if len(value.encode()) <= SHOWN else value[:SHOWN] + "…"
