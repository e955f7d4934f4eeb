"""Names and types in statements that run with binds: a percent sign in them is doubled, as psycopg wants it."""

from collections.abc import Iterable

from psycopg import sql


def ident(*names: str) -> sql.Identifier:
    """An identifier, qualified where there are several names. Only for statements that are run with binds."""
    return sql.Identifier(*(name.replace("%", "%%") for name in names))


def type_name(name: str) -> sql.SQL:
    """A type as the catalog spells it."""
    return sql.SQL(name.replace("%", "%%"))


def columns(alias: str, names: Iterable[str]) -> sql.Composed:
    """The columns of one relation, as a list; without an alias, by their names alone."""
    return sql.SQL(", ").join(ident(alias, name) if alias else ident(name) for name in names)
