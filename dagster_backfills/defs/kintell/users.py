"""The users that addresses belong to: finding, keeping and making them. Not here: what an address is."""

from typing import TYPE_CHECKING

import psycopg

from dagster_backfills.defs.kintell.rules import name_from_address, shown
from dagster_backfills.defs.kintell.statements import statements

if TYPE_CHECKING:
    import polars as pl

MAX_IN_MEMORY = 500_000
ROLES = ("participant", "volunteer")


class Users:
    """Ids by lower-cased address. Up to half a million users are held here; of more, each block asks Postgres.

    An address that is not here is looked up before it counts as missing, so that users made in the meantime
    are found. `removals` counts those of users before any was looked up.
    """

    def __init__(self, conn: psycopg.Connection) -> None:
        self._conn = conn
        self.refresh()

    def refresh(self) -> None:
        """Forget everything and read again."""
        import polars as pl

        self.removals = statements().count_user_removals(self._conn)
        self._known = pl.DataFrame(schema={"email": pl.String, "id": pl.String})
        if statements().count_users(self._conn) <= MAX_IN_MEMORY:
            parts = [
                pl.DataFrame({"user": text.split("\n")}, schema={"user": pl.String}).select(
                    pl.col("user").str.slice(36).str.to_lowercase().alias("email"),
                    pl.col("user").str.head(36).alias("id"),
                )
                for (text,) in statements().all_users(self._conn)
            ]
            self._known = pl.concat([self._known, *parts]).unique("email")

    def find(self, emails: "pl.Series") -> "pl.DataFrame":
        """`email`, `id` of those of `emails` (lower-cased, distinct) that exist."""
        import polars as pl

        wanted = pl.DataFrame({"email": emails}, schema={"email": pl.String})
        found = wanted.join(self._known, on="email")
        missing = wanted.join(found, on="email", how="anti")["email"].to_list()
        if missing:
            rows = list(statements().find_users(self._conn, emails=missing))
            extra = pl.DataFrame(rows, schema={"email": pl.String, "id": pl.String}, orient="row")
            found = pl.concat([found, extra]).unique("email")
        return found

    def create(self, emails_by_role: dict[str, list[str]]) -> int:
        """Make users with a name taken from the address; addresses that exist by now are left alone."""
        made = 0
        for role, emails in emails_by_role.items():
            ordered = sorted(emails)
            names = [name_from_address(email) for email in ordered]
            made += statements().create_users(self._conn, emails=ordered, names=names, role=role)
        return made


def keep_users(conn: psycopg.Connection, removals: int) -> bool:
    """See to it that users who were there at so many `removals` stay until the transaction ends. False where that
    can't be told: then Postgres looks row by row."""
    sql = statements()
    sql.lock_sessions(conn)
    if not sql.may_keep_users(conn):
        return False
    try:
        with conn.transaction():
            sql.keep_users(conn)
    except psycopg.errors.LockNotAvailable:
        return False
    return bool(sql.count_user_removals(conn) == removals)


def resolve(judged: "pl.DataFrame", users: Users) -> "pl.DataFrame":
    """`judged` with `participant_id` and `volunteer_id`; an address of no user becomes its column's message."""
    import polars as pl

    emails = pl.concat(
        judged.filter(pl.col(f"{role}_error").is_null())[f"{role}_email"].rename("email") for role in ROLES
    ).unique()
    known = users.find(emails)
    for role in ROLES:
        column, error = f"{role}_email", f"{role}_error"
        judged = judged.join(
            known.rename({"email": column, "id": f"{role}_id"}), on=column, how="left", maintain_order="left"
        ).with_columns(
            pl.when(pl.col(error).is_null() & pl.col(f"{role}_id").is_null())
            .then(pl.lit(f"{role.capitalize()} not found: ") + shown(pl.col(column)))
            .otherwise(pl.col(error))
            .alias(error)
        )
    return judged


def missing(judged: "pl.DataFrame") -> "pl.DataFrame":
    """`email`, `role` of the valid addresses in resolved rows that belong to no user; each address once."""
    import polars as pl

    found = [
        judged.filter(pl.col(f"{role}_error").str.starts_with(f"{role.capitalize()} not found: ")).select(
            pl.col(f"{role}_email").alias("email"), pl.lit(role).alias("role")
        )
        for role in ROLES
    ]
    return pl.concat(found).unique("email", keep="first", maintain_order=True)
