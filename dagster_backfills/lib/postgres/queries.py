"""Named statements from the `.sql` files beside a domain, with psycopg's binds."""

from functools import cache
from pathlib import Path
from typing import Any


@cache
def load_statements(*paths: Path) -> Any:
    """Callables by name, `statements.count_users(conn, role="x")`, from files of `-- name: …` blocks.

    What a call returns is said behind the name: `$` one value, `^` one row, `!` how many rows it touched, nothing the
    rows. `.sql` of each is its text. The files stand as they are in psql (`\\set bind …`). Raises FileNotFoundError
    where there is none.
    """
    import aiosql

    text = "\n".join(path.read_text(encoding="utf-8") for path in paths)
    return aiosql.from_str(text, "psycopg", mandatory_parameters=False)


@cache
def load_queries(path: Path) -> dict[str, str]:
    """The texts of a file's statements by name; `:bind` becomes `%(bind)s`."""
    loaded = load_statements(path)
    names = [name for name in loaded.available_queries if not name.endswith("_cursor")]
    return {name: getattr(loaded, name).sql.rstrip().removesuffix(";") for name in names}
