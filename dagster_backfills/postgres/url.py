"""Telling a URL that names no database, before libpq quotes it, password and all. Not here: where it comes from."""

import re

import psycopg
from psycopg.conninfo import conninfo_to_dict

from dagster_backfills.errors import NotUsableError

_HINT = (
    "Write postgresql://user:password@host:5432/database;"
    " in the password % @ : / ? and # are %25 %40 %3A %2F %3F %23."
)


def checked_url(url: str, name: str = "DATABASE_URL") -> str:
    """`url`, if libpq can read it. Raises NotUsableError that says what is wrong and nothing of what stands there."""
    wrong = _fault(re.sub(r"^(postgres(?:ql)?)\+\w+://", r"\1://", url))
    if wrong:
        # Without the cause, whose message has the URL in it.
        raise NotUsableError(f"{name} is not a connection URL.", f"{wrong} {_HINT}") from None
    return url


def _fault(url: str) -> str:
    try:
        given = conninfo_to_dict(url)
    except (psycopg.Error, UnicodeError, ValueError):
        return "It can't be read."
    ports = str(given.get("port") or "").split(",")
    if not all(port == "" or port.isdecimal() for port in ports):
        return "Its port is not a number."
    # One that begins with it is an abstract socket.
    return "Its host has an @ in it." if "@" in str(given.get("host") or "")[1:] else ""
