"""Counts what an import of a file would do. Not here: reading the file and comparing sessions (`dry_run`)."""

from collections import Counter
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field
from itertools import islice
from typing import Any

from dagster_backfills.domains.kintell.rows.messages import NOT_FOUND, message_kind, messages

SHOWN_ERRORS = 100
SHOWN_EXAMPLES = 3
SHOWN_KINDS = 10


@dataclass(frozen=True)
class FrequentError:
    """A kind of message, the number of rows that have it, and the first of them as an example."""

    error: str
    rows: int
    row: int
    value: str
    message: str


@dataclass(frozen=True)
class Example:
    """A value that an update would change."""

    row: int
    session_id: str
    before: str | None
    after: str | None


@dataclass
class Change:
    """The number of sessions that differ in a column, with examples."""

    sessions: int = 0
    examples: list[Example] = field(default_factory=list)


@dataclass
class ErrorKinds:
    """Rows per kind of message. `kinds` counts rows by message without value; `firsts` has each first row."""

    kinds: Counter[str] = field(default_factory=Counter)
    firsts: dict[str, tuple[int, str]] = field(default_factory=dict)

    def add_messages(self, number: int, joined: str) -> list[str]:
        """Count the messages of a row. Returns one message of each kind."""
        parts = {message_kind(part): part for part in reversed(messages(joined))}
        self.kinds.update(parts.keys())
        for kind, part in parts.items():
            self.firsts.setdefault(kind, (number, part))
        return list(parts.values())

    def frequent(self, most: int = SHOWN_KINDS) -> list[FrequentError]:
        """The most frequent kinds of messages, most frequent first."""
        ordered = sorted(self.kinds.items(), key=lambda each: (-each[1], each[0]))[:most]
        examples = [(kind, rows, *self.firsts[kind]) for kind, rows in ordered]
        return [
            FrequentError(kind, rows, row, part[len(kind) + 2 :], part) for kind, rows, row, part in examples
        ]


@dataclass
class ImportPreview(ErrorKinds):
    """What an import of the file would do.

    `duplicates` counts existing sessions; `changed` of them differ from the file, in the columns of `changes`. `errors`
    has the first hundred rejected rows (row, message). `missing` maps addresses of missing users to their roles.
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

    @property
    def same(self) -> int:
        return self.duplicates - self.changed

    def add_existing(self, existing: Iterable[tuple[int, list[str]]]) -> dict[int, list[str]]:
        """Count existing sessions, given as row and differing columns. Returns, by row, the columns whose values are
        to be added as examples."""
        examples: dict[int, list[str]] = {}
        for row, columns in existing:
            self.duplicates += 1
            self.changed += bool(columns)
            for column in columns:
                change = self.changes.setdefault(column, Change())
                change.sessions += 1
                if change.sessions <= SHOWN_EXAMPLES:
                    examples.setdefault(row, []).append(column)
        return examples

    def add_rejected(self, rejected: Iterable[tuple[int, str]]) -> None:
        """Count rejected rows, given as number and message."""
        for number, message in rejected:
            self.failed += 1
            if len(self.errors) < SHOWN_ERRORS:
                self.errors.append((number, message))
            for part in self.add_messages(number, message):
                for role, message_type in NOT_FOUND.items():
                    if part.startswith(message_type.prefix):
                        self.missing.setdefault(part.split(": ", 1)[1], role)

    def examples(self) -> list[tuple[str, int, str, str | None, str | None]]:
        """For each example: its column, the sessions that differ in it, the session, the value before and after."""
        return [
            (column, change.sessions, example.session_id, example.before, example.after)
            for column, change in self.changes.items()
            for example in change.examples
        ]

    def plain(self) -> dict[str, Any]:
        """Everything as JSON-compatible data, with the first thousand missing users."""
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
