"""Parsing and quoting table names as written in SQL: `training.members`, `public."Member"`."""

import re

from sqlalchemy.dialects import postgresql

_TABLE = re.compile(r'^(?:(?P<schema>"[^"]+"|[\w$]+)\.)?(?P<name>"[^"]+"|[\w$]+)$')
_PREPARER = postgresql.dialect(paramstyle="named").identifier_preparer


def quoted(name: str) -> str:
    """A name as an SQL identifier, quoted only if necessary: `"memberId"`, `"order"`."""
    return str(_PREPARER.quote(name))


def split_table(text: str) -> tuple[str, str]:
    """The schema and name of a table as written in SQL. The default schema is `public`."""
    match = _TABLE.match(text.strip())
    if not match:
        raise ValueError(
            f'{text!r} is not a table name; write schema.table, or schema."Table" if it needs quotes'
        )
    return (match["schema"] or "public").strip('"'), match["name"].strip('"')


def asset_path(table: str) -> list[str]:
    """The table's asset key. Dagster allows only ASCII letters, digits and underscores."""
    return [re.sub(r"[^A-Za-z0-9_]", "_", part) for part in split_table(table)]


def is_named(table: str, text: str) -> bool:
    """Whether the SQL text names the table. The schema may be omitted if it is `public`."""
    schema, name = split_table(table)
    quoted = rf'("{re.escape(name)}"|\b{re.escape(name)}\b)'
    qualified = rf'("{re.escape(schema)}"|\b{re.escape(schema)}\b)\.{quoted}'
    return re.search(qualified if schema != "public" else rf"({qualified}|{quoted})", text) is not None
