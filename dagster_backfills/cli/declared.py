"""The database of a declaration, for commands."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import psycopg

from dagster_backfills.errors import NotUsableError
from dagster_backfills.postgres.connection import connect
from dagster_backfills.postgres.embedded import resolve_database_url
from dagster_backfills.postgres.url import checked_url


@contextmanager
def database_of(variable: str | None) -> Iterator[psycopg.Connection[Any]]:
    """The database that a declaration names, for the time of one command; one that it does not name is DATABASE_URL."""
    if variable is not None and not os.environ.get(variable):
        raise NotUsableError(f"{variable} is not set, and a declaration names it as its database's URL.")
    url = checked_url(os.environ[variable], variable) if variable else resolve_database_url()
    with connect(url, application_name="backfills", connect_timeout=10) as conn:
        yield conn
