"""The users that addresses belong to: finding, keeping and making them. Not here: what an address is."""

from unicodedata import normalize

import polars as pl
import psycopg

from dagster_backfills.domains.kintell.file.columns import ROLES
from dagster_backfills.domains.kintell.rows.messages import NOT_FOUND
from dagster_backfills.domains.kintell.rows.rules import about
from dagster_backfills.domains.kintell.rows.values import name_from_address
from dagster_backfills.domains.kintell.statements import STATEMENTS

MAX_IN_MEMORY = 500_000
_SEED = 1


class Users:
    """Ids by lower-cased address. Up to half a million users are held here; of more, each block asks Postgres.

    An address that is not here is looked up before it counts as missing, so that users made in the meantime
    are found. One that was removed in the meantime is found out by the foreign key.
    """

    def __init__(self, conn: psycopg.Connection) -> None:
        self._conn = conn
        few = STATEMENTS.count_users(conn) <= MAX_IN_MEMORY
        everybody = conn.execute(STATEMENTS.all_users.sql, binary=True).fetchall() if few else []
        email = pl.col("email").str.to_lowercase()
        # In the order of a hash of the address, by which an address is found much faster than by a join.
        self._held = _frame(everybody).with_columns(email, hash=email.hash(_SEED)).sort("hash")

    def ids(self, emails: pl.Series) -> pl.Series:
        """The id (16 bytes) of the user that each lower-cased address belongs to; null where there is none."""
        found = self._known(emails)
        unknown = emails.filter(found.is_null()).drop_nulls().unique().to_list()
        if unknown:
            asked = _frame(self._asked(unknown))
            joined = pl.DataFrame({"email": emails}).join(
                asked, on="email", how="left", maintain_order="left"
            )
            found = found.zip_with(found.is_not_null(), joined["id"])
        return found

    def _known(self, emails: pl.Series) -> pl.Series:
        if not len(self._held):
            return pl.repeat(None, len(emails), dtype=pl.Binary, eager=True)
        places = self._held["hash"].search_sorted(emails.hash(_SEED)).clip(0, len(self._held) - 1)
        there = self._held[places]
        return there.select(pl.when(pl.col("email") == emails).then("id")).to_series()

    def _asked(self, emails: list[str]) -> list[tuple[str, bytes]]:
        """Users that an application stored, in Unicode's decomposed form too: files have the composed one."""
        spelled = [(email, email) for email in emails]
        spelled += [(e, normalize("NFD", e)) for e in emails if not e.isascii()]
        given, asked = zip(*spelled, strict=True)
        return list(STATEMENTS.find_users(self._conn, emails=list(given), spelled=list(asked)))

    def create(self, emails: list[str], role: str) -> None:
        """Make users with a name taken from the address; addresses that exist by now are left alone."""
        names = [name_from_address(email) for email in emails]
        STATEMENTS.create_users(self._conn, emails=emails, names=names, role=role)


def _frame(users: list[tuple[str, bytes]]) -> pl.DataFrame:
    return pl.DataFrame(users, schema={"email": pl.String, "id": pl.Binary}, orient="row")


def resolve(judged: pl.DataFrame, users: Users) -> pl.DataFrame:
    """`judged` with `participant_id` and `volunteer_id`; an address of no user becomes its column's message."""
    for role in ROLES:
        column, error, user = (pl.col(f"{role}_{name}") for name in ("email", "email_error", "id"))
        emails = judged.select(pl.when(error.is_null()).then(column)).to_series()
        judged = judged.with_columns(users.ids(emails).alias(f"{role}_id")).with_columns(
            pl.when(error.is_null() & user.is_null())
            .then(about(NOT_FOUND[role], column))
            .otherwise(error)
            .alias(f"{role}_email_error")
        )
    return judged


def is_missing(role: str) -> pl.Expr:
    """Whether a resolved row's address of this role belongs to no user."""
    return pl.col(f"{role}_email_error").str.starts_with(NOT_FOUND[role].says)
