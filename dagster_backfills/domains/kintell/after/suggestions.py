"""What a rejected value may have been meant to be. A guess for a person to take or leave: no import goes by it."""

import re
from collections.abc import Collection, Mapping
from difflib import SequenceMatcher, get_close_matches

import psycopg

from dagster_backfills.domains.kintell.file.columns import KNOWN
from dagster_backfills.domains.kintell.rows.rules import LEVELS, PLAIN_ADDRESS
from dagster_backfills.domains.kintell.rows.verdict import messages
from dagster_backfills.domains.kintell.statements import statements

# The columns that a message blames, by how it begins.
BLAMED = {
    "Missing session_id": ("session_id",),
    "Invalid session_id": ("session_id",),
    "Duplicate session_id": ("session_id",),
    "Duplicate key value": ("session_id",),
    "Unknown session type": ("session_type",),
    "Invalid email format": ("participant_email", "volunteer_email"),
    "Participant not found": ("participant_email",),
    "Volunteer not found": ("volunteer_email",),
    "Invalid date format": ("date",),
    "Invalid duration": ("duration_min",),
    "Invalid rating": ("rating",),
    "Invalid feedback text": ("feedback_text",),
    "Invalid language level": ("language_level",),
}
CLEARLY_CLOSER = 0.02
_TYPES = ("Language Connect", "Mentorship")
_ADDRESSES = ("participant_email", "volunteer_email")


def blamed(message: str, fields: Mapping[str, str]) -> list[str]:
    """The columns whose values a row's message is about, in the file's usual order."""
    found: set[str] = set()
    for part in messages(message):
        columns = next((columns for begin, columns in BLAMED.items() if part.startswith(begin)), ())
        said = part.partition(": ")[2].casefold()
        named = [name for name in columns if said and fields.get(name, "").strip().casefold() == said]
        found.update(named or columns)
    return [name for name in KNOWN if name in found]


def suggested(message: str, fields: Mapping[str, str], users: Mapping[str, str]) -> dict[str, str]:
    """For each column that is to blame what it may be meant to hold, where there is a guess. `users`: addresses of
    users by those that came close to them (`close_users`)."""
    guesses = {name: _guess(name, fields.get(name, "").strip(), users) for name in blamed(message, fields)}
    return {name: guess for name, guess in guesses.items() if guess}


def unknown_addresses(message: str, fields: Mapping[str, str]) -> list[str]:
    """The row's addresses that a user is to be looked for by."""
    return [fields[name].strip().lower() for name in blamed(message, fields) if name in _ADDRESSES]


def close_users(conn: psycopg.Connection, addresses: Collection[str]) -> dict[str, str]:
    """By address of nobody's the user's that comes closest: of the same domain, or of the same name elsewhere.
    None where several come about as close."""
    found = {}
    for address, near in statements().near_users(conn, emails=sorted(set(addresses))):
        spelled = {email.lower(): email for email in near}
        close = get_close_matches(address, spelled, n=2, cutoff=0.85)
        ratios = [SequenceMatcher(None, each, address).ratio() for each in close]
        if len(close) == 1 or (close and ratios[0] - ratios[1] >= CLEARLY_CLOSER):
            found[address] = spelled[close[0]]
    return found


def _guess(column: str, value: str, users: Mapping[str, str]) -> str:
    match column:
        case "session_type":
            return _closest(value, _TYPES)
        case "participant_email" | "volunteer_email":
            mended = re.sub(r"\s+|^<|[>,;.]+$", "", re.sub(r"(?i)\s*[([]at[)\]]\s*", "@", value))
            whole = mended != value and re.match(PLAIN_ADDRESS, mended)
            return users.get(value.lower(), "") or (mended if whole else "")
        case "date":
            return _date(value)
        case "language_level":
            level = re.sub(r"[^A-Z0-9]", "", value.upper())[:2]
            return level if level in LEVELS else ""
        case "rating" | "duration_min":
            number = re.match(r"([0-9]+)(?:[.,]0+)?\s*(?:/\s*5|min\.?|minutes?|stars?)?$", value)
            return number[1] if number and number[1] != value and int(number[1]) else ""
    return ""


def _closest(value: str, known: Collection[str]) -> str:
    names = {name.casefold(): name for name in known}
    close = get_close_matches(value.casefold(), names, n=1, cutoff=0.6)
    return names[close[0]] if close else ""


def _date(value: str) -> str:
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
