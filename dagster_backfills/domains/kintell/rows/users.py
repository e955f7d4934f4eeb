"""Finds, caches and creates users by e-mail address. Not here: validating an address (`rules`)."""

from unicodedata import normalize

import polars as pl
import psycopg

from dagster_backfills.domains.kintell.file.columns import ROLES
from dagster_backfills.domains.kintell.rows.messages import NOT_FOUND
from dagster_backfills.domains.kintell.rows.rules import message_with
from dagster_backfills.domains.kintell.rows.values import name_from_address
from dagster_backfills.domains.kintell.statements import STATEMENTS

MAX_CACHED = 500_000
_SEED = 1


class Users:
    """User IDs by lower-cased address. Up to half a million users are cached; with more, every block queries Postgres.

    An address that is not cached is looked up before it counts as missing, so that users created during the import are
    found. A user deleted during the import violates the foreign key.
    """

    def __init__(self, conn: psycopg.Connection) -> None:
        self._conn = conn
        fits = STATEMENTS.count_users(conn) <= MAX_CACHED
        users = conn.execute(STATEMENTS.all_users.sql, binary=True).fetchall() if fits else []
        email = pl.col("email").str.to_lowercase()
        # Sorted by a hash of the address: a binary search is much faster than a join.
        self._cache = _frame(users).with_columns(email, hash=email.hash(_SEED)).sort("hash")

    def ids(self, emails: pl.Series) -> pl.Series:
        """The user ID (16 bytes) for each lower-cased address, null for unknown addresses."""
        ids = self._from_cache(emails)
        unknown = emails.filter(ids.is_null()).drop_nulls().unique().to_list()
        if unknown:
            users = _frame(self._from_database(unknown))
            joined = pl.DataFrame({"email": emails}).join(
                users, on="email", how="left", maintain_order="left"
            )
            ids = ids.zip_with(ids.is_not_null(), joined["id"])
        return ids

    def _from_cache(self, emails: pl.Series) -> pl.Series:
        if not len(self._cache):
            return pl.repeat(None, len(emails), dtype=pl.Binary, eager=True)
        indexes = self._cache["hash"].search_sorted(emails.hash(_SEED)).clip(0, len(self._cache) - 1)
        candidates = self._cache[indexes]
        return candidates.select(pl.when(pl.col("email") == emails).then("id")).to_series()

    def _from_database(self, emails: list[str]) -> list[tuple[str, bytes]]:
        """Also finds addresses that an application stored in NFD. Addresses from files are in NFC."""
        spellings = [(email, email) for email in emails]
        spellings += [(e, normalize("NFD", e)) for e in emails if not e.isascii()]
        given, spelled = zip(*spellings, strict=True)
        return list(STATEMENTS.find_users(self._conn, emails=list(given), spelled=list(spelled)))

    def create(self, emails: list[str], role: str) -> None:
        """Create users, each with a name derived from the address. Existing users are left unchanged."""
        names = [name_from_address(email) for email in emails]
        STATEMENTS.create_users(self._conn, emails=emails, names=names, role=role)


def _frame(users: list[tuple[str, bytes]]) -> pl.DataFrame:
    return pl.DataFrame(users, schema={"email": pl.String, "id": pl.Binary}, orient="row")


def resolve(validated: pl.DataFrame, users: Users) -> pl.DataFrame:
    """Add `participant_id` and `volunteer_id` to `validated`, and the message for addresses that belong to no user."""
    for role in ROLES:
        column, error, user = (pl.col(f"{role}_{name}") for name in ("email", "email_error", "id"))
        emails = validated.select(pl.when(error.is_null()).then(column)).to_series()
        validated = validated.with_columns(users.ids(emails).alias(f"{role}_id")).with_columns(
            pl.when(error.is_null() & user.is_null())
            .then(message_with(NOT_FOUND[role], column))
            .otherwise(error)
            .alias(f"{role}_email_error")
        )
    return validated


def is_missing(role: str) -> pl.Expr:
    """Whether a resolved row's address for this role belongs to no user."""
    return pl.col(f"{role}_email_error").str.starts_with(NOT_FOUND[role].prefix)
