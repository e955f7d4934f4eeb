"""The table and the Dagster instance that the tests of this folder write to."""

from collections.abc import Iterator
from pathlib import Path

import dagster as dg
import pytest

from dagster_backfills.instance.dagster_home import with_search_path
from dagster_backfills.instance.storage.sessions import with_tested_driver

SETTINGS = "storage: {postgres: {postgres_url: {env: EVENTS_TEST_URL}}}\ntelemetry: {enabled: false}\n"


@pytest.fixture
def table(conn):
    """A table `t.items(part, id, v)` with the key `(part, id)`."""
    conn.execute("create schema t")
    conn.execute("create table t.items (part text, id int, v text, primary key (part, id))")
    return "t.items"


@pytest.fixture
def instance(
    database_with_dagster: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[dg.DagsterInstance]:
    """An instance with Dagster's own storage, in a database of its own."""
    url = with_search_path(database_with_dagster, "dagster")
    monkeypatch.setenv("EVENTS_TEST_URL", with_tested_driver(url))
    monkeypatch.setenv("DAGSTER_EVENT_BATCH_SIZE", "1000")
    (tmp_path / "dagster.yaml").write_text(SETTINGS)
    with dg.DagsterInstance.from_config(str(tmp_path)) as made:
        # Connections are kept, instead of one for each event.
        made.optimize_for_webserver(statement_timeout=0, pool_recycle=-1, max_overflow=20)
        yield made
