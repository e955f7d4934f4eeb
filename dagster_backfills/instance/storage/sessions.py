"""Pinning the sessions of Dagster's own storage, and placing its tables, by a plugin that its URL names.

Not by the startup parameter `options`, which is where a URL says `search_path`: poolers refuse it, or drop it, and
the tables would come to lie in another schema. Not here: what is pinned (`lib.postgres.connection`).
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
    """The URL, with psycopg2 where it names no driver.

    `dagster-postgres` is written for psycopg2 (its `NOTIFY` with a bind is a syntax error on psycopg 3), and
    SQLAlchemy takes that for a plain `postgresql://` only up to 2.0.
    """
    scheme, separator, rest = url.partition("://")
    return f"postgresql+psycopg2{separator}{rest}" if scheme in ("postgresql", "postgres") else url


def pinned_url(url: str) -> str:
    """The URL, with its driver, made so that every engine of it pins its sessions."""
    driven = make_url(with_tested_driver(url))
    return driven.update_query_dict({"plugin": _NAME}).render_as_string(hide_password=False)


class PinnedSessions(CreateEnginePlugin):
    """What SQLAlchemy asks when an engine is made of such a URL."""

    def __init__(self, url: URL, kwargs: dict[str, Any]) -> None:
        super().__init__(url, kwargs)
        self._url = self.update_url(url.set(drivername="postgresql")).render_as_string(hide_password=False)
        path = _SEARCH_PATH.search(_options(url))
        self._settings = {**PINNED, **({"search_path": re.sub(r"\\(.)", r"\1", path[1])} if path else {})}

    def update_url(self, url: URL) -> URL:
        """The URL for the driver: without the plugin's name, and without what is set by statement instead."""
        rest = _SEARCH_PATH.sub("", _options(url)).strip()
        without = url.difference_update_query(["plugin", "options"])
        return without.update_query_dict({"options": rest}) if rest else without

    def engine_created(self, engine: Engine) -> None:
        # First of all: SQLAlchemy then asks which schema is the default.
        event.listen(engine, "connect", self._pin, insert=True)

    def _pin(self, connection: Any, _: object) -> None:
        connection.autocommit = True  # a rollback would take the settings back
        with connection.cursor() as cursor:
            cursor.execute(pin(self._settings))
            backend = cursor.fetchone()[0]
        connection.autocommit = False
        if backend != connection.info.backend_pid:
            require_session(self._url)


def _options(url: URL) -> str:
    return str(url.query.get("options") or "")


plugins.register(_NAME, __name__, PinnedSessions.__name__)
