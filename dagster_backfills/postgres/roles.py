"""Applying `sql/roles.sql`. Not here: who may do what, which that file says."""

import psycopg

from dagster_backfills.errors import NotUsableError
from dagster_backfills.postgres.connection import connect
from dagster_backfills.state import project_file


def apply_roles(url: str) -> None:
    """Create the roles that are missing and grant what each may do, in one transaction. May be run again."""
    with connect(url, autocommit=True) as conn:
        try:
            conn.execute((project_file("sql") / "roles.sql").read_bytes())
        except psycopg.Error as error:
            raise NotUsableError(
                f"sql/roles.sql was refused: {error.diag.message_primary or error}. Nothing of it is applied.",
                "Run it as a superuser, or as a role that may create roles and owns what is there.",
            ) from error
