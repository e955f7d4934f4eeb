"""The domain's named statements, loaded once from its `.sql` files."""

from functools import lru_cache
from pathlib import Path
from typing import Any

FILES = ("queries.sql", "undo.sql", "events.sql")


@lru_cache(maxsize=1)
def statements() -> Any:
    """Callables by statement name: `statements().count_users(conn)`; `.sql` is the text."""
    import aiosql

    text = "\n".join(Path(__file__).with_name(name).read_text(encoding="utf-8") for name in FILES)
    return aiosql.from_str(text, "psycopg", mandatory_parameters=False)
