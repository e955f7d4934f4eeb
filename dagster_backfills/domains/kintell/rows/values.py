"""Parsers for single values, and guesses at what an invalid value was meant to be. Pure.

A parser returns None for an invalid value. A guess is only a suggestion in the error workbook, empty if there is none.
"""

import re
from datetime import UTC, datetime
from difflib import get_close_matches

SESSION_TYPES = {"language connect": "language", "mentorship": "mentorship"}
LEVELS = ("A1", "A2", "B1", "B2", "C1", "C2")
MAX_DURATION = 2**31 - 1
MAX_DIGITS = 18
# Ordinary addresses. Used for at most 64 bytes, so no label or local part is too long. Reserved domains (`.local`) are
# left to the library.
PLAIN_ADDRESS = (
    r"^[A-Za-z0-9]+(?:[._+-][A-Za-z0-9]+)*@"
    r"(?:[A-Za-z0-9]+(?:-[A-Za-z0-9]+)*\.)+[A-Za-z]{2,}$"
)
# A UTC offset of hours and minutes, as in ISO 8601. Python also accepts seconds, and minutes over 59.
OFFSET = r"[+-](?:[01][0-9]|2[0-3])(?::?[0-5][0-9])?"


def to_session_type(value: str) -> str | None:
    """Ignores case and accepts any white space between the words, such as a no-break space."""
    return SESSION_TYPES.get(" ".join(value.lower().split()))


def to_minutes(value: str) -> int | None:
    """Accepts digits only: no sign, no fraction, no exponent."""
    minutes = int(value) if value.isascii() and value.isdigit() and len(value) <= MAX_DIGITS else 0
    return minutes if 1 <= minutes <= MAX_DURATION else None


def to_rating(value: str) -> int | None:
    return int(value) if value in ("1", "2", "3", "4", "5") else None


def to_level(value: str) -> str | None:
    return value.upper() if value.upper() in LEVELS else None


def to_utc(value: str) -> datetime | None:
    """Parse an ISO 8601 date or date-time to UTC. No zone means UTC."""
    day, _, clock = value.upper().replace(" ", "T").partition("T")
    offset = re.search(r"[+-].*", clock)
    known = not offset or re.fullmatch(OFFSET, offset[0])
    if len(value) > 64 or not value.isascii() or len(day) > 10 or not known:
        return None
    try:
        moment = datetime.fromisoformat(value)
        return moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment.astimezone(UTC)
    except (ValueError, OverflowError):
        return None


def name_from_address(address: str) -> str:
    """A user's name derived from the address: `ana.maria-lopez@…` gives `Ana Maria Lopez`."""
    local = address.partition("@")[0].partition("+")[0]
    for mark in "._-":
        local = local.replace(mark, " ")
    return " ".join(part.capitalize() for part in local.split()) or address


def guess_session_type(value: str) -> str:
    names = {name: name.title() for name in SESSION_TYPES}
    close = get_close_matches(value.casefold(), names, n=1, cutoff=0.6)
    return names[close[0]] if close else ""


def guess_address(value: str) -> str:
    """Repairs `(at)`, white space, angle brackets and trailing punctuation."""
    repaired = re.sub(r"\s+|^<|[>,;.]+$", "", re.sub(r"(?i)\s*[([]at[)\]]\s*", "@", value))
    return repaired if repaired != value and re.match(PLAIN_ADDRESS, repaired) else ""


def guess_level(value: str) -> str:
    return to_level(re.sub(r"[^A-Z0-9]", "", value.upper())[:2]) or ""


def guess_number(value: str) -> str:
    """Drops a zero fraction or a unit: `45.0`, `45 min`, `4/5`."""
    match = re.match(r"([0-9]+)(?:[.,]0+)?\s*(?:/\s*5|min\.?|minutes?|stars?)?$", value)
    return match[1] if match and match[1] != value and int(match[1]) else ""


def guess_date(value: str) -> str:
    """Swaps day and month, or moves a year from the end to the front, if only one reading is possible."""
    iso = re.match(r"([0-9]{4})-([0-9]{2})-([0-9]{2})(.*)$", value)
    if iso and int(iso[2]) > 12 >= int(iso[3]) > 0:
        return f"{iso[1]}-{iso[3]}-{iso[2]}{iso[4]}"
    last = re.match(r"([0-9]{1,2})[./-]([0-9]{1,2})[./-]([0-9]{4})$", value)
    if not last:
        return ""
    first, second = int(last[1]), int(last[2])
    if first > 12 >= second > 0:
        return f"{last[3]}-{second:02}-{first:02}"
    if second > 12 >= first > 0:
        return f"{last[3]}-{first:02}-{second:02}"
    return ""
