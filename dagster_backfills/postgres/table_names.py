"""Tables as people and statements name them: `training.members`, `public."Member"`."""

import re

from sqlalchemy.dialects import postgresql

_TABLE = re.compile(r'^(?:(?P<schema>"[^"]+"|[\w$]+)\.)?(?P<name>"[^"]+"|[\w$]+)$')
_PREPARER = postgresql.dialect(paramstyle="named").identifier_preparer


def quoted(name: str) -> str:
    """A name as SQL has it for people: in quotes where it needs them, `"memberId"` or `"order"`."""
    return str(_PREPARER.quote(name))


def split_table(text: str) -> tuple[str, str]:
    """Schema and name of a table as SQL writes it: `training.members`, `public."Member"`."""
    found = _TABLE.match(text.strip())
    if not found:
        raise ValueError(
            f'{text!r} names no table; write schema.table, or schema."Table" where it needs quotes'
        )
    return (found["schema"] or "public").strip('"'), found["name"].strip('"')


def asset_path(table: str) -> list[str]:
    """The table's key as an asset: Dagster's names have letters (a to z), digits and underscores alone."""
    return [re.sub(r"[^A-Za-z0-9_]", "_", part) for part in split_table(table)]


def is_named(table: str, text: str) -> bool:
    """Whether SQL names the table, with its schema or, in `public`, without."""
    schema, name = split_table(table)
    quoted = rf'("{re.escape(name)}"|\b{re.escape(name)}\b)'
    qualified = rf'("{re.escape(schema)}"|\b{re.escape(schema)}\b)\.{quoted}'
    return re.search(qualified if schema != "public" else rf"({qualified}|{quoted})", text) is not None
