"""The sessions of Dagster's own storage, by a SQLAlchemy plugin: settings, search path, waiting for the server.

The startup parameter `options`, in which a URL usually has the `search_path`, is not used. Poolers reject or drop it,
and then the tables would be in another schema. Not here: the settings (`postgres/connection`).
"""

import re
import time
from typing import Any

import dagster as dg
import psycopg2
from sqlalchemy import URL, Engine, NullPool, create_engine, event, make_url
from sqlalchemy.dialects import plugins
from sqlalchemy.engine import CreateEnginePlugin

from dagster_backfills.postgres.connection import PINNED, pin, require_session

_NAME = "dagster_backfills"
# Dagster retries a connection for some twelve seconds. Then the run fails, even if it only wanted to log that the
# engine is reconnecting. A process that executes a run therefore waits as long as the engine does.
_WAIT_SECONDS, _RETRY_SECONDS = 120.0, 1.0
_BEGINS = (dg.DagsterEventType.RUN_START, dg.DagsterEventType.STEP_START)
_ENDS = (dg.DagsterEventType.RUN_SUCCESS, dg.DagsterEventType.RUN_FAILURE, dg.DagsterEventType.RUN_CANCELED)
_executed_here: set[str] = set()  # runs, or runs of steps, that this process executes
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


def require_connection(url: str) -> None:
    """Raise an error if the storage's server does not accept a connection. One attempt, five seconds at most."""
    engine = create_engine(pinned_url(url), poolclass=NullPool, connect_args={"connect_timeout": 5})
    with engine.connect():
        return


def note_execution(event: dg.EventLogEntry) -> None:
    """Note from an event that this process stores whether it executes the run. Others don't wait for the server."""
    if event.dagster_event_type in _BEGINS:
        _executed_here.add(event.run_id)
    elif event.dagster_event_type in _ENDS:
        _executed_here.discard(event.run_id)


class PinnedSessions(CreateEnginePlugin):
    """The plugin that SQLAlchemy calls when it creates an engine from such a URL."""

    def __init__(self, url: URL, kwargs: dict[str, Any]) -> None:
        super().__init__(url, kwargs)
        self._url = self.update_url(url.set(drivername="postgresql")).render_as_string(hide_password=False)
        path = _SEARCH_PATH.search(_options(url))
        self._away_since: float | None = None
        self._settings = {**PINNED, **({"search_path": re.sub(r"\\(.)", r"\1", path[1])} if path else {})}

    def update_url(self, url: URL) -> URL:
        """The URL for the driver, without the plugin's name and the search path."""
        rest = _SEARCH_PATH.sub("", _options(url)).strip()
        without = url.difference_update_query(["plugin", "options"])
        return without.update_query_dict({"options": rest}) if rest else without

    def engine_created(self, engine: Engine) -> None:
        # Before other listeners, because SQLAlchemy then queries the default schema.
        event.listen(engine, "connect", self._pin, insert=True)
        event.listen(engine, "do_connect", self._connect)

    def _connect(self, dialect: Any, _: object, arguments: Any, named: Any) -> Any:
        while True:
            try:
                connection = dialect.connect(*arguments, **named)
            except psycopg2.OperationalError:
                self._away_since = self._away_since or time.monotonic()
                if not _executed_here or time.monotonic() - self._away_since > _WAIT_SECONDS:
                    raise
                time.sleep(_RETRY_SECONDS)
            else:
                self._away_since = None
                return connection

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
