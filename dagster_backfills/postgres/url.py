"""Validating database URLs, so that libpq's error messages, which contain the password, are never shown."""

import re

import psycopg
from psycopg.conninfo import conninfo_to_dict

from dagster_backfills.errors import NotUsableError

_HINT = (
    "Write postgresql://user:password@host:5432/database;"
    " in the password % @ : / ? and # are %25 %40 %3A %2F %3F %23."
)


def checked_url(url: str, name: str = "DATABASE_URL") -> str:
    """`url`, if libpq can parse it. Raises NotUsableError with the reason, but without any part of the URL."""
    fault = _fault(re.sub(r"^(postgres(?:ql)?)\+\w+://", r"\1://", url))
    if fault:
        # Without the cause, whose message contains the URL.
        raise NotUsableError(f"{name} is not a connection URL.", f"{fault} {_HINT}") from None
    return url


def _fault(url: str) -> str:
    try:
        given = conninfo_to_dict(url)
    except (psycopg.Error, UnicodeError, ValueError):
        return "It can't be parsed."
    ports = str(given.get("port") or "").split(",")
    if not all(port == "" or port.isdecimal() for port in ports):
        return "Its port is not a number."
    # A host that starts with @ is an abstract socket.
    return "Its host has an @ in it." if "@" in str(given.get("host") or "")[1:] else ""
