"""Applying our session settings and the search path to the sessions of Dagster's own storage, by a SQLAlchemy plugin.

The startup parameter `options`, in which a URL usually has the `search_path`, is not used. Poolers reject or drop it,
and then the tables would be in another schema. Not here: the settings (`postgres/connection`).
"""

import re
from typing import Any

from sqlalchemy import URL, Engine, event, make_url
from sqlalchemy.dialects import plugins
from sqlalchemy.engine import CreateEnginePlugin

from dagster_backfills.postgres.connection import PINNED, pin, require_session

_NAME = "dagster_backfills"
_SEARCH_PATH = re.compile(r"(?:-c\s*|--)search_path=((?:\\.|\S)*)")


def with_tested_driver(url: str) -> str:
    """The URL, with psycopg2 as driver if it names none.

    `dagster-postgres` requires psycopg2, because its `NOTIFY` with a bind is a syntax error on psycopg 3. SQLAlchemy
    uses psycopg2 by default only up to version 2.0.
    """
    scheme, separator, rest = url.partition("://")
    return f"postgresql+psycopg2{separator}{rest}" if scheme in ("postgresql", "postgres") else url


def pinned_url(url: str) -> str:
    """The URL with driver and plugin, so that every engine created from it pins its sessions."""
    driven = make_url(with_tested_driver(url))
    return driven.update_query_dict({"plugin": _NAME}).render_as_string(hide_password=False)


class PinnedSessions(CreateEnginePlugin):
    """The plugin that SQLAlchemy calls when it creates an engine from such a URL."""

    def __init__(self, url: URL, kwargs: dict[str, Any]) -> None:
        super().__init__(url, kwargs)
        self._url = self.update_url(url.set(drivername="postgresql")).render_as_string(hide_password=False)
        path = _SEARCH_PATH.search(_options(url))
        self._settings = {**PINNED, **({"search_path": re.sub(r"\\(.)", r"\1", path[1])} if path else {})}

    def update_url(self, url: URL) -> URL:
        """The URL for the driver, without the plugin's name and the search path."""
        rest = _SEARCH_PATH.sub("", _options(url)).strip()
        without = url.difference_update_query(["plugin", "options"])
        return without.update_query_dict({"options": rest}) if rest else without

    def engine_created(self, engine: Engine) -> None:
        # Before other listeners, because SQLAlchemy then queries the default schema.
        event.listen(engine, "connect", self._pin, insert=True)

    def _pin(self, connection: Any, _: object) -> None:
        connection.autocommit = True  # a rollback would revert the settings
        with connection.cursor() as cursor:
            cursor.execute(pin(self._settings))
            backend = cursor.fetchone()[0]
        connection.autocommit = False
        if backend != connection.info.backend_pid:
            require_session(self._url)


def _options(url: URL) -> str:
    return str(url.query.get("options") or "")


plugins.register(_NAME, __name__, PinnedSessions.__name__)
