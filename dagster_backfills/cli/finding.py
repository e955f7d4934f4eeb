"""Findings of `backfills doctor`. Not here: the checks (`doctor`, `doctor_machine`, `doctor_postgres`)."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from enum import StrEnum

from dagster_backfills.cli.errors import explain
from dagster_backfills.redact import redact


class Level(StrEnum):
    """`WARNING`: works now, but needs attention. `ERROR`: does not work."""

    OK = "ok"
    WARNING = "warning"
    ERROR = "error"


@dataclass(frozen=True)
class Finding:
    """One line of the doctor's table: the check, its result, and what to do about it."""

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


def findings_of(check: Check, name: str = "") -> list[Finding]:
    """Run a check. An exception becomes a finding, so that the other checks still run."""
    findings: list[Finding] = []
    try:
        findings.extend(check())
    except Exception as error:
        _, message, hint = explain(error)
        findings.append(Finding.error(name or check.__name__.replace("_", " "), message, hint))
    return findings
