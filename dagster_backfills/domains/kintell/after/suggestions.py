"""What a rejected value may have been meant to be. A guess for a person to take or leave: no import goes by it."""

from collections.abc import Collection, Mapping
from difflib import SequenceMatcher, get_close_matches

import psycopg

from dagster_backfills.domains.kintell.file.columns import ADDRESSES
from dagster_backfills.domains.kintell.rows.messages import blamed
from dagster_backfills.domains.kintell.statements import STATEMENTS

CLEARLY_CLOSER = 0.02


def suggested(message: str, fields: Mapping[str, str], users: Mapping[str, str]) -> dict[str, str]:
    """For each column that is to blame what it may be meant to hold, where there is a guess. `users`: addresses of
    users by those that came close to them (`close_users`)."""
    guesses = {}
    for column, told in blamed(message, fields).items():
        value = fields.get(column, "").strip()
        near = users.get(value.lower(), "") if column in ADDRESSES else ""
        guesses[column] = near or told.suggest(value)
    return {column: guess for column, guess in guesses.items() if guess}


def unknown_addresses(message: str, fields: Mapping[str, str]) -> list[str]:
    """The row's addresses that a user is to be looked for by."""
    return [fields[name].strip().lower() for name in blamed(message, fields) if name in ADDRESSES]


def close_users(conn: psycopg.Connection, addresses: Collection[str]) -> dict[str, str]:
    """By address of nobody's the user's that comes closest: of the same domain, or of the same name elsewhere.
    None where several come about as close."""
    found = {}
    for address, near in STATEMENTS.near_users(conn, emails=sorted(set(addresses))):
        spelled = {email.lower(): email for email in near}
        close = get_close_matches(address, spelled, n=2, cutoff=0.85)
        ratios = [SequenceMatcher(None, each, address).ratio() for each in close]
        if len(close) == 1 or (close and ratios[0] - ratios[1] >= CLEARLY_CLOSER):
            found[address] = spelled[close[0]]
    return found
