"""Suggestions for rejected values, shown in the error workbook. Imports never use them."""

from collections.abc import Collection, Mapping
from difflib import SequenceMatcher, get_close_matches

import psycopg

from dagster_backfills.domains.kintell.file.columns import ADDRESSES
from dagster_backfills.domains.kintell.rows.messages import failing_columns
from dagster_backfills.domains.kintell.statements import STATEMENTS

CLEARLY_CLOSER = 0.02


def suggest(message: str, fields: Mapping[str, str], users: Mapping[str, str]) -> dict[str, str]:
    """Suggested values by failing column. `users` is the result of `closest_users`."""
    guesses = {}
    for column, column_message in failing_columns(message, fields).items():
        value = fields.get(column, "").strip()
        near = users.get(value.lower(), "") if column in ADDRESSES else ""
        guesses[column] = near or column_message.suggest(value)
    return {column: guess for column, guess in guesses.items() if guess}


def unknown_addresses(message: str, fields: Mapping[str, str]) -> list[str]:
    """The row's failing addresses, for which `closest_users` may find a user."""
    return [fields[name].strip().lower() for name in failing_columns(message, fields) if name in ADDRESSES]


def closest_users(conn: psycopg.Connection, addresses: Collection[str]) -> dict[str, str]:
    """The closest user's address for each unknown address: in the same domain, or with the same name in another one.
    Left out if several users are about equally close."""
    closest = {}
    for address, near in STATEMENTS.near_users(conn, emails=sorted(set(addresses))):
        spelled = {email.lower(): email for email in near}
        close = get_close_matches(address, spelled, n=2, cutoff=0.85)
        ratios = [SequenceMatcher(None, each, address).ratio() for each in close]
        if len(close) == 1 or (close and ratios[0] - ratios[1] >= CLEARLY_CLOSER):
            closest[address] = spelled[close[0]]
    return closest
