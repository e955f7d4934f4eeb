"""The users that addresses belong to: finding, keeping and making them. Not here: what an address is."""

from collections.abc import Iterator
from unicodedata import normalize

import numpy as np
import polars as pl
import psycopg

from dagster_backfills.domains.kintell.file.columns import ROLES
from dagster_backfills.domains.kintell.rows.messages import NOT_FOUND
from dagster_backfills.domains.kintell.rows.rules import about
from dagster_backfills.domains.kintell.rows.values import name_from_address
from dagster_backfills.domains.kintell.statements import statements

MAX_IN_MEMORY = 500_000
HASH_SEED = 1


class Users:
    """Ids by lower-cased address. Up to half a million users are held here; of more, each block asks Postgres.

    An address that is not here is looked up before it counts as missing, so that users made in the meantime
    are found. One that was removed in the meantime is found out by the foreign key.
    """

    def __init__(self, conn: psycopg.Connection) -> None:
        self._conn = conn
        self.refresh()

    def refresh(self) -> None:
        """Forget everything and read again."""
        known = [pl.DataFrame(schema={"email": pl.String, "id": pl.Binary})]
        if statements().count_users(self._conn) <= MAX_IN_MEMORY:
            known += [
                pl.DataFrame({"user": text.split("\n")}, schema={"user": pl.String}).select(
                    pl.col("user").str.slice(32).str.to_lowercase().alias("email"),
                    pl.col("user").str.head(32).str.decode("hex").alias("id"),
                )
                for text in self._texts()
            ]
        # In the order of a hash of the address, which also tells about where in that order an address stands.
        ordered = pl.concat(known).with_columns(hash=pl.col("email").hash(HASH_SEED)).sort("hash")
        self._known = ordered.drop("hash")
        self._places = _Places(ordered["hash"].to_numpy())

    def _texts(self) -> Iterator[str]:
        """All users, some thousand at a time."""
        with self._conn.transaction(), self._conn.cursor(name="kintell_users") as cursor:
            cursor.itersize = 4
            for (text,) in cursor.execute(statements().all_users.sql):
                yield text

    def ids(self, emails: pl.Series) -> pl.Series:
        """The id (16 bytes) of the user that each lower-cased address belongs to; null where there is none."""
        found = self._held(emails)
        unknown = emails.filter(found.is_null()).drop_nulls().unique().to_list()
        rows = self._asked(unknown) if unknown else []
        if rows:
            asked = pl.DataFrame(rows, schema={"email": pl.String, "asked": pl.Binary}, orient="row")
            wanted = pl.DataFrame({"email": emails, "held": found})
            joined = wanted.join(asked, on="email", how="left", maintain_order="left")
            found = joined.select(pl.coalesce("held", "asked")).to_series()
        return found

    def _asked(self, emails: list[str]) -> list[tuple[str, bytes]]:
        """Users that an application stored, in Unicode's decomposed form too: files have the composed one."""
        spelled = [(email, email) for email in emails]
        spelled += [(e, normalize("NFD", e)) for e in emails if not e.isascii()]
        given, asked = zip(*spelled, strict=True)
        return list(statements().find_users(self._conn, emails=list(given), spelled=list(asked)))

    def _held(self, emails: pl.Series) -> pl.Series:
        if not len(self._known):
            return pl.Series([None] * len(emails), dtype=pl.Binary)
        near = self._known[self._places.of(emails.hash(HASH_SEED).to_numpy())]
        return near.select(pl.when(pl.col("email") == emails).then("id")).to_series()

    def create(self, emails_by_role: dict[str, list[str]]) -> int:
        """Make users with a name taken from the address; addresses that exist by now are left alone."""
        made = 0
        for role, emails in emails_by_role.items():
            ordered = sorted(emails)
            names = [name_from_address(email) for email in ordered]
            made += statements().create_users(self._conn, emails=ordered, names=names, role=role)
        return made


class _Places:
    """Where hashes stand in a sorted array of them. Their first bits say it but for a few places: a third of the time
    of a binary search, and much less memory than a table by address."""

    def __init__(self, hashes: np.ndarray) -> None:
        bits = len(hashes).bit_length() + 1
        self._shift = np.uint64(64 - bits)
        counts = np.bincount((hashes >> self._shift).astype(np.int64), minlength=2**bits)
        self._first = np.concatenate([[0], np.cumsum(counts)[:-1]]).astype(np.int32)
        self._hashes = np.append(hashes, np.uint64(2**64 - 1))  # where every search ends
        self._last = len(hashes) - 1

    def of(self, wanted: np.ndarray) -> np.ndarray:
        """The place of each of `wanted`, or one beside it where it is not there."""
        at = self._first[wanted >> self._shift]
        before = np.flatnonzero(self._hashes[at] < wanted)
        while len(before):
            at[before] += 1
            before = before[self._hashes[at[before]] < wanted[before]]
        return np.minimum(at, self._last)


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


def missing(judged: pl.DataFrame) -> pl.DataFrame:
    """`email`, `role` of the valid addresses in resolved rows that belong to no user; each address once."""
    found = [
        judged.filter(is_missing(role)).select(
            pl.col(f"{role}_email").alias("email"), pl.lit(role).alias("role")
        )
        for role in ROLES
    ]
    return pl.concat(found).unique("email", keep="first", maintain_order=True)
