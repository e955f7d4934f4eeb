"""What a check of `backfills doctor` found. Not here: the checks."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from enum import StrEnum

from dagster_backfills.cli.errors import explain
from dagster_backfills.redact import redact


class Level(StrEnum):
    """`WARNING`: it works, and will not for ever. `ERROR`: something does not work."""

    OK = "ok"
    WARNING = "warning"
    ERROR = "error"


@dataclass(frozen=True)
class Finding:
    """One line of the doctor's: what was looked at, what it is like, and what to do about it."""

    check: str
    level: Level
    found: str
    advice: str = ""

    @classmethod
    def ok(cls, check: str, found: str) -> "Finding":
        return cls(check, Level.OK, redact(found))

    @classmethod
    def warning(cls, check: str, found: str, advice: str = "") -> "Finding":
        return cls(check, Level.WARNING, redact(found), advice)

    @classmethod
    def error(cls, check: str, found: str, advice: str = "") -> "Finding":
        return cls(check, Level.ERROR, redact(found), advice)


Check = Callable[[], Iterable[Finding]]


def found_by(check: Check, name: str = "") -> list[Finding]:
    """The findings of a check; an exception of it is a finding too, and hides no other check's."""
    findings: list[Finding] = []
    try:
        findings.extend(check())
    except Exception as error:
        _, message, hint = explain(error)
        findings.append(Finding.error(name or check.__name__.replace("_", " "), message, hint))
    return findings
