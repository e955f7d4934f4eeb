"""The first day that sessions are summarized of: a setting, or where the sessions begin."""

from collections.abc import Mapping
from datetime import date

VARIABLE = "KINTELL_FIRST_DAY"
EARLIEST = "2000-01-01"


def first_day(environment: Mapping[str, str]) -> str:
    """The day of `KINTELL_FIRST_DAY`; without it, or where it is none, long before any session."""
    try:
        return date.fromisoformat(environment.get(VARIABLE, "").strip()).isoformat()
    except ValueError:
        return EARLIEST
