"""What a value may be, one at a time, and what a bad one may have been meant to be. Pure.

A guess is for a person to take or leave: no import goes by it. It is empty where there is none.
"""

import re
from datetime import UTC, datetime
from difflib import get_close_matches

SESSION_TYPES = {"language connect": "language", "mentorship": "mentorship"}
LEVELS = ("A1", "A2", "B1", "B2", "C1", "C2")
MAX_DURATION = 2**31 - 1
MAX_DIGITS = 18
# Plain addresses only, of at most 64 bytes: no label or local part can be too long. Reserved domains
# (`.local` and the like) are left to the library.
PLAIN_ADDRESS = (
    r"^[A-Za-z0-9]+(?:[._+-][A-Za-z0-9]+)*@"
    r"(?:[A-Za-z0-9]+(?:-[A-Za-z0-9]+)*\.)+[A-Za-z]{2,}$"
)
# ISO 8601 has hours and minutes here; Python would take minutes over 59, and seconds too.
OFFSET = r"[+-](?:[01][0-9]|2[0-3])(?::?[0-5][0-9])?"


def to_session_type(value: str) -> str | None:
    """In any case, with any white space between the words: a no-break space looks like the other one."""
    return SESSION_TYPES.get(" ".join(value.lower().split()))


def to_minutes(value: str) -> int | None:
    """Digits alone: no sign, no fraction, no exponent."""
    minutes = int(value) if value.isascii() and value.isdigit() and len(value) <= MAX_DIGITS else 0
    return minutes if 1 <= minutes <= MAX_DURATION else None


def to_rating(value: str) -> int | None:
    return int(value) if value in ("1", "2", "3", "4", "5") else None


def to_level(value: str) -> str | None:
    return value.upper() if value.upper() in LEVELS else None


def to_utc(value: str) -> datetime | None:
    """An ISO 8601 date or date-time in UTC (no zone means UTC); None where it is none."""
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
    """A name for a user of whom only the address is known: `ana.maria-lopez@…` is `Ana Maria Lopez`."""
    local = address.partition("@")[0].partition("+")[0]
    for mark in "._-":
        local = local.replace(mark, " ")
    return " ".join(part.capitalize() for part in local.split()) or address


def guess_session_type(value: str) -> str:
    names = {name: name.title() for name in SESSION_TYPES}
    close = get_close_matches(value.casefold(), names, n=1, cutoff=0.6)
    return names[close[0]] if close else ""


def guess_address(value: str) -> str:
    """One with `(at)` for its sign, white space in it, angle brackets around it, or something behind it."""
    mended = re.sub(r"\s+|^<|[>,;.]+$", "", re.sub(r"(?i)\s*[([]at[)\]]\s*", "@", value))
    return mended if mended != value and re.match(PLAIN_ADDRESS, mended) else ""


def guess_level(value: str) -> str:
    return to_level(re.sub(r"[^A-Z0-9]", "", value.upper())[:2]) or ""


def guess_number(value: str) -> str:
    """One with a fraction of nothing, or with its unit."""
    found = re.match(r"([0-9]+)(?:[.,]0+)?\s*(?:/\s*5|min\.?|minutes?|stars?)?$", value)
    return found[1] if found and found[1] != value and int(found[1]) else ""


def guess_date(value: str) -> str:
    """Day and month exchanged, or a date with its year last, where it can be read in one way only."""
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
