"""The domain's named statements, loaded once from `queries.sql`."""

from functools import lru_cache
from pathlib import Path
from typing import Any


@lru_cache(maxsize=1)
def statements() -> Any:
    """Callables by statement name: `statements().job(conn, job=…)`; `.sql` is the text."""
    import aiosql

    return aiosql.from_path(Path(__file__).with_name("queries.sql"), "psycopg", mandatory_parameters=False)
