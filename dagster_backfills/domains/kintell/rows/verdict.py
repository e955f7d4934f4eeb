"""What an import of a file would do, counted batch by batch. Not here: reading the file, asking the database."""

from collections import Counter
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field
from itertools import islice
from typing import Any

from dagster_backfills.domains.kintell.rows.messages import NOT_FOUND, kind_of, messages

SHOWN_ERRORS = 100
SHOWN_EXAMPLES = 3
SHOWN_KINDS = 10


@dataclass(frozen=True)
class FrequentError:
    """A kind of message, in how many rows it stands, and the first of them as an example."""

    error: str
    rows: int
    row: int
    value: str
    message: str


@dataclass(frozen=True)
class Example:
    """One value that an update would change."""

    row: int
    session_id: str
    before: str | None
    after: str | None


@dataclass
class Change:
    """How many sessions differ in a column, and the first of them."""

    sessions: int = 0
    examples: list[Example] = field(default_factory=list)


@dataclass
class ErrorKinds:
    """`kinds` counts messages without their values, by rows; `firsts` has the first row of each."""

    kinds: Counter[str] = field(default_factory=Counter)
    firsts: dict[str, tuple[int, str]] = field(default_factory=dict)

    def add_messages(self, number: int, joined: str) -> list[str]:
        """Count the messages of a row. Returns the first of each kind."""
        parts = {kind_of(part): part for part in reversed(messages(joined))}
        self.kinds.update(parts.keys())
        for kind, part in parts.items():
            self.firsts.setdefault(kind, (number, part))
        return list(parts.values())

    def frequent(self, most: int = SHOWN_KINDS) -> list[FrequentError]:
        """The most frequent kinds of messages."""
        ordered = sorted(self.kinds.items(), key=lambda each: (-each[1], each[0]))[:most]
        found = [(kind, rows, *self.firsts[kind]) for kind, rows in ordered]
        return [
            FrequentError(kind, rows, row, part[len(kind) + 2 :], part) for kind, rows, row, part in found
        ]


@dataclass
class ImportPreview(ErrorKinds):
    """What an import of the file would do.

    Of the sessions that are there already, `duplicates`, `changed` differ from the file, in the columns of `changes`.
    `errors` are the first hundred rejected rows (row, message); `missing` the roles by address of users that do not
    exist.
    """

    on_duplicate: str = "skip"
    total: int = 0
    new: int = 0
    duplicates: int = 0
    changed: int = 0
    failed: int = 0
    changes: dict[str, Change] = field(default_factory=dict)
    errors: list[tuple[int, str]] = field(default_factory=list)
    missing: dict[str, str] = field(default_factory=dict)
    recognized: str = ""
    seconds: float = 0.0

    @property
    def same(self) -> int:
        return self.duplicates - self.changed

    def add_there(self, there: Iterable[tuple[int, list[str]]]) -> dict[int, list[str]]:
        """Count sessions that are there, by row and the columns in which they differ. Returns the rows, and their
        columns, of which values are wanted as examples."""
        wanted: dict[int, list[str]] = {}
        for row, columns in there:
            self.duplicates += 1
            self.changed += bool(columns)
            for column in columns:
                change = self.changes.setdefault(column, Change())
                change.sessions += 1
                if change.sessions <= SHOWN_EXAMPLES:
                    wanted.setdefault(row, []).append(column)
        return wanted

    def add_rejected(self, rejected: Iterable[tuple[int, str]]) -> None:
        """Count rejected rows: their numbers and messages."""
        for number, message in rejected:
            self.failed += 1
            if len(self.errors) < SHOWN_ERRORS:
                self.errors.append((number, message))
            for part in self.add_messages(number, message):
                self._note_missing(part)

    def _note_missing(self, part: str) -> None:
        for role, told in NOT_FOUND.items():
            if part.startswith(told.says):
                self.missing.setdefault(part.split(": ", 1)[1], role)

    def plain(self) -> dict[str, Any]:
        """All but the seconds, for programs; of the missing users the first thousand."""
        counts = ("on_duplicate", "total", "new", "duplicates", "changed", "same", "failed")
        return {
            "recognized": self.recognized,
            **{name: getattr(self, name) for name in counts},
            "changes": {name: asdict(change) for name, change in self.changes.items()},
            "kinds": self.kinds.most_common(),
            "frequent_errors": [asdict(each) for each in self.frequent(SHOWN_KINDS)],
            "errors": self.errors,
            "missing_users": len(self.missing),
            "missing": dict(islice(self.missing.items(), 1000)),
        }
