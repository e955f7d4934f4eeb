"""Names and types for statements that are executed with parameters: psycopg needs a percent sign in them doubled."""

from collections.abc import Iterable

from psycopg import sql


def ident(*names: str) -> sql.Identifier:
    """A quoted identifier, qualified if there are several names. Only for statements executed with parameters."""
    return sql.Identifier(*(name.replace("%", "%%") for name in names))


def type_name(name: str) -> sql.SQL:
    """A type as the catalog spells it."""
    return sql.SQL(name.replace("%", "%%"))


def columns(alias: str, names: Iterable[str]) -> sql.Composed:
    """A comma-separated list of columns, qualified with the alias unless it is empty."""
    return sql.SQL(", ").join(ident(alias, name) if alias else ident(name) for name in names)
