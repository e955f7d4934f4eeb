"""What the tests of this folder store into and report to."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import dagster as dg
import pytest


@pytest.fixture
def table(conn):
    """A table `t.items(part, id, v)`, with the key `(part, id)`."""
    conn.execute("create schema t")
    conn.execute("create table t.items (part text, id int, v text, primary key (part, id))")
    return "t.items"


@pytest.fixture
def instance(
    make_database: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[dg.DagsterInstance]:
    monkeypatch.setenv("DAGSTER_EVENT_BATCH_SIZE", "1000")
    url = make_database(migrated=False).replace("postgresql://", "postgresql+psycopg2://", 1)
    monkeypatch.setenv("EVENTS_TEST_URL", url)
    settings = "storage: {postgres: {postgres_url: {env: EVENTS_TEST_URL}}}\ntelemetry: {enabled: false}\n"
    (tmp_path / "dagster.yaml").write_text(settings)
    with dg.DagsterInstance.from_config(str(tmp_path)) as made:
        yield made
