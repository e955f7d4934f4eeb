"""What commands on declared backfills share: the project's declarations, and the database of each."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psycopg

from dagster_backfills.components.building import Backfill
from dagster_backfills.components.loading import backfill_named
from dagster_backfills.errors import NotUsableError
from dagster_backfills.postgres.embedded import resolve_database_url
from dagster_backfills.postgres.url import checked_url


def declared_backfill(name: str) -> Backfill:
    """The backfill of the project that the command is called in. Raises UserError where there is none of that name."""
    return backfill_named(name, Path.cwd())


@contextmanager
def database_of(variable: str | None) -> Iterator[psycopg.Connection[Any]]:
    """The database that a declaration names, for the time of one command; one that it does not name is DATABASE_URL."""
    if variable is not None and not os.environ.get(variable):
        raise NotUsableError(f"{variable} is not set, and a declaration names it as its database's URL.")
    url = checked_url(os.environ[variable], variable) if variable else resolve_database_url()
    with psycopg.connect(url, application_name="backfills", connect_timeout=10) as conn:
        yield conn
