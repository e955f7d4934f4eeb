"""Dagster's own storage while its server is away: a run waits for it, other processes report it at once."""

from collections.abc import Iterator
from pathlib import Path
from threading import Timer
from typing import Any

import dagster as dg
import psycopg
import pytest
from dagster_postgres.utils import DagsterPostgresException

from dagster_backfills.instance.dagster_home import dagster_database_url
from dagster_backfills.postgres.embedded import EmbeddedServer

pytestmark = pytest.mark.programs


@pytest.fixture
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EmbeddedServer]:
    server = EmbeddedServer(tmp_path_factory.mktemp("server"))
    server.start()
    try:
        yield server
    finally:
        server.start()
        server.delete()


@pytest.fixture
def instance(
    server: EmbeddedServer, project_root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[dg.DagsterInstance]:
    """An instance on this server. Its own retries of a connection take no time."""
    with psycopg.connect(server.url("postgres"), autocommit=True) as conn:
        conn.execute("create database test")
    monkeypatch.setenv("DATABASE_URL", server.url("test"))
    dagster_database_url()
    (tmp_path / "dagster.yaml").write_text((project_root / "dagster.yaml").read_text())
    monkeypatch.setattr("dagster_postgres.utils.calculate_delay", lambda **_: 0)
    with dg.DagsterInstance.from_config(str(tmp_path)) as instance:
        yield instance


def test_a_run_waits_for_the_server_of_dagsters_own_tables(
    server: EmbeddedServer, instance: dg.DagsterInstance
) -> None:
    @dg.op
    def talkative(context: dg.OpExecutionContext) -> None:
        server.stop()
        back = Timer(2, server.start)
        back.start()
        context.log.info("The server is away.")
        back.join()

    @dg.job
    def talk() -> None:
        talkative()

    result: Any = talk.execute_in_process(instance=instance, raise_on_error=False)
    assert result.success
    logged = [entry.user_message for entry in instance.all_logs(result.run_id)]
    assert "The server is away." in logged


def test_a_process_that_executes_no_run_reports_at_once_that_the_server_is_away(
    server: EmbeddedServer, instance: dg.DagsterInstance
) -> None:
    server.stop()
    with pytest.raises(DagsterPostgresException):
        instance.get_runs(limit=1)
