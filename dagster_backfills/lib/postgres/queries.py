"""Named statements from the `.sql` file beside a domain, with psycopg's binds."""

from functools import cache
from pathlib import Path


@cache
def load_queries(path: Path) -> dict[str, str]:
    """Statements by name from a file of `-- name: …` blocks; `:bind` becomes `%(bind)s`.

    The files stand as they are in psql (`\\set bind …`). Raises FileNotFoundError where there is none.
    """
    import aiosql

    queries = aiosql.from_path(path, "psycopg")
    return {
        name: getattr(queries, name).sql for name in queries.available_queries if not name.endswith("_cursor")
    }
