"""The batching event log compared with the stock one: every row, and everything that Dagster reads back."""

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import dagster as dg
import psycopg
import pytest
from dagster._core.definitions.asset_checks.asset_check_evaluation import AssetCheckEvaluationPlanned
from dagster._core.events import (
    AssetMaterializationPlannedData,
    AssetObservationData,
    StepMaterializationData,
)
from dagster_postgres import PostgresEventLogStorage

from dagster_backfills.dagster.partition_events import stock_storage_note
from dagster_backfills.instance.dagster_home import with_search_path
from dagster_backfills.instance.storage import BatchedEventLogStorage, BatchedPostgresStorage
from dagster_backfills.instance.storage import event_log as module
from dagster_backfills.instance.storage.sessions import with_tested_driver
from dagster_backfills_tests.conftest import new_database

RUN, OTHER_RUN = "11111111-1111-1111-1111-111111111111", "22222222-2222-2222-2222-222222222222"
STATS, GAMES = dg.AssetKey(["progress", "stats"]), dg.AssetKey(["games"])
ODD = ["a,b", "it's", '"quoted"', "50% off", "a/b\\c", "naïve 日本 🎲", "x" * 500, "{brace}", ":colon", "$1"]
COLUMNS = {
    "event_logs": "id, run_id, event, dagster_event_type, timestamp, step_key, asset_key, partition",
    "asset_keys": (
        "asset_key, last_materialization, last_run_id, asset_details, wipe_timestamp,"
        " last_materialization_timestamp, tags, cached_status_data"
    ),
    "asset_event_tags": "event_id, asset_key, key, value, event_timestamp",
    "asset_check_executions": (
        "asset_key, check_name, partition, run_id, execution_status, evaluation_event,"
        " evaluation_event_timestamp, evaluation_event_storage_id"
    ),
}


def _entry(number: int, run_id: str, kind: dg.DagsterEventType, data: Any) -> dg.EventLogEntry:
    return dg.EventLogEntry(
        error_info=None,
        level=10,
        user_message="",
        run_id=run_id,
        timestamp=1_700_000_000.25 + number,
        step_key="step",
        job_name="job",
        dagster_event=dg.DagsterEvent(
            event_type_value=kind.value,
            job_name="job",
            event_specific_data=data,
            step_key="step",
            message="m",
        ),
    )


def planned(number: int, asset: dg.AssetKey, partition: str | None, run_id: str = RUN) -> dg.EventLogEntry:
    data = AssetMaterializationPlannedData(asset, partition=partition, partitions_subset=None)
    return _entry(number, run_id, dg.DagsterEventType.ASSET_MATERIALIZATION_PLANNED, data)


def materialized(
    number: int, asset: dg.AssetKey, partition: str | None, run_id: str = RUN
) -> dg.EventLogEntry:
    tags = {"dagster/data_version": f"v{number}", "dagster/code_version": "1", "own": "tag"}
    made = dg.AssetMaterialization(
        asset, partition=partition, metadata={"rows": number, "of": "é"}, tags=tags
    )
    return _entry(number, run_id, dg.DagsterEventType.ASSET_MATERIALIZATION, StepMaterializationData(made))


def observed(number: int, asset: dg.AssetKey, partition: str | None) -> dg.EventLogEntry:
    seen = dg.AssetObservation(asset, partition=partition, tags={"dagster/data_version": f"o{number}"})
    return _entry(number, RUN, dg.DagsterEventType.ASSET_OBSERVATION, AssetObservationData(seen))


def check_planned(number: int, asset: dg.AssetKey) -> dg.EventLogEntry:
    data = AssetCheckEvaluationPlanned(asset_key=asset, check_name=f"check {number}")
    return _entry(number, RUN, dg.DagsterEventType.ASSET_CHECK_EVALUATION_PLANNED, data)


BATCHES: Mapping[str, Sequence[dg.EventLogEntry]] = {
    "planned partitions of one asset": [planned(n, STATS, f"p{n}") for n in range(50)],
    "planned, odd keys": [planned(n, STATS, key) for n, key in enumerate(ODD)],
    "planned, two assets in turn": [planned(n, (STATS, GAMES)[n % 2], f"p{n}") for n in range(9)],
    "planned, no partitions": [planned(0, GAMES, None), planned(1, STATS, None)],
    "planned with checks between": [
        planned(0, GAMES, "a"),
        planned(1, GAMES, "b"),
        check_planned(2, GAMES),
        check_planned(3, STATS),
        planned(4, STATS, "a"),
        planned(5, STATS, "b"),
    ],
    "one planned event": [planned(0, STATS, "only")],
    "materializations of one asset": [materialized(n, STATS, f"p{n}") for n in range(20)],
    "materializations, odd keys": [materialized(n, STATS, key) for n, key in enumerate(ODD)],
    "materializations of two assets": [materialized(n, (STATS, GAMES)[n % 2], f"p{n}") for n in range(9)],
    "observations": [observed(n, STATS, f"p{n}") for n in range(5)],
    "everything mixed": [
        planned(0, STATS, "a"),
        materialized(1, STATS, "a"),
        observed(2, STATS, "a"),
        planned(3, GAMES, "a"),
        planned(4, STATS, "b"),
        check_planned(5, STATS),
        materialized(6, GAMES, "a"),
        planned(7, STATS, "c", OTHER_RUN),
        planned(8, STATS, "d", OTHER_RUN),
    ],
}


@pytest.fixture
def storages(
    server_url: str, dagsters_template: str
) -> Iterator[tuple[PostgresEventLogStorage, BatchedEventLogStorage]]:
    with (
        new_database(server_url, dagsters_template) as one,
        new_database(server_url, dagsters_template) as two,
    ):
        urls = [with_tested_driver(with_search_path(url, "dagster")) for url in (one, two)]
        both = (PostgresEventLogStorage(urls[0]), BatchedEventLogStorage(urls[1]))
        for storage in both:
            # Connections are kept, instead of one for each event.
            storage.optimize_for_webserver(statement_timeout=0, pool_recycle=-1, max_overflow=20)
        yield both
        for storage in both:
            storage.dispose()


def _rows(storage: PostgresEventLogStorage, table: str) -> list[tuple[Any, ...]]:
    with psycopg.connect(storage.postgres_url.replace("+psycopg2", "")) as conn:
        return conn.execute(f"select {COLUMNS[table]} from {table} order by 1, 2, 3").fetchall()  # noqa: S608


def _store(storages: Sequence[PostgresEventLogStorage], batch: Sequence[dg.EventLogEntry]) -> None:
    stock, batched = storages
    for event in batch:
        stock.store_event(event)
    batched.store_event_batch(batch)


@pytest.mark.parametrize("name", BATCHES)
def test_a_batch_leaves_the_same_rows_as_its_events_one_by_one_and_dagster_reads_the_same(
    name: str, storages: Any
) -> None:
    _store(storages, BATCHES[name])
    stock, batched = storages
    for table in COLUMNS:
        assert _rows(batched, table) == _rows(stock, table), table
    assert len(_rows(stock, "event_logs")) == len(BATCHES[name])
    assert _what_dagster_reads(batched) == _what_dagster_reads(stock)


def _what_dagster_reads(storage: PostgresEventLogStorage) -> dict[str, Any]:
    read: dict[str, Any] = {
        "logs": storage.get_logs_for_run(RUN),
        "stats": storage.get_stats_for_run(RUN),
        "partitions of run": storage.get_asset_partitions_for_run(RUN),
        "assets": sorted(storage.all_asset_keys()),
    }
    for asset in (STATS, GAMES):
        read[f"{asset} materialized"] = storage.get_materialized_partitions(asset)
        read[f"{asset} unfinished"] = (
            storage.get_latest_asset_partition_materialization_attempts_without_materializations(asset)
        )
        read[f"{asset} planned"] = storage.get_latest_planned_materialization_info(asset)
        read[f"{asset} tags"] = storage.get_event_tags_for_asset(asset)
        read[f"{asset} record"] = [
            (record.asset_entry.last_run_id, record.asset_entry.last_materialization)
            for record in storage.get_asset_records([asset])
        ]
        for kind in (
            dg.DagsterEventType.ASSET_MATERIALIZATION,
            dg.DagsterEventType.ASSET_MATERIALIZATION_PLANNED,
        ):
            read[f"{asset} {kind}"] = storage.get_event_records(dg.EventRecordsFilter(kind, asset))
            read[f"{asset} {kind} ids"] = storage.get_latest_storage_id_by_partition(asset, kind)
    return read


def test_of_two_batches_of_different_runs_the_later_one_counts(storages: Any) -> None:
    _store(storages, [planned(n, STATS, f"p{n}") for n in range(3)])
    _store(storages, [materialized(n, STATS, f"p{n}") for n in range(3, 6)])
    _store(storages, [planned(n, STATS, f"p{n}", OTHER_RUN) for n in range(6, 9)])
    stock, batched = storages
    for table in COLUMNS:
        assert _rows(batched, table) == _rows(stock, table), table
    assert batched.get_asset_records([STATS])[0].asset_entry.last_run_id == OTHER_RUN


def test_planned_events_of_one_asset_are_one_transaction(storages: Any) -> None:
    _, batched = storages
    before = _writes(batched)
    batched.store_event_batch([planned(n, STATS, f"p{n}") for n in range(200)])
    assert len(_rows(batched, "event_logs")) == 200
    assert _writes(batched) - before == 1


def _writes(storage: PostgresEventLogStorage) -> int:
    """The number of transactions that wrote rows of `event_logs`."""
    with psycopg.connect(storage.postgres_url.replace("+psycopg2", "")) as conn:
        row = conn.execute("select count(distinct xmin::text) from event_logs").fetchone()
    assert row
    return row[0]


def test_a_batch_that_postgres_rejects_leaves_nothing(storages: Any) -> None:
    _, batched = storages
    with pytest.raises(Exception, match="0x00"):
        batched.store_event_batch([planned(0, STATS, "good"), planned(1, STATS, "nul \x00 byte")])
    assert _rows(batched, "event_logs") == []
    assert _rows(batched, "asset_keys") == []


def test_the_installed_dagster_has_the_signatures_that_batching_needs() -> None:
    assert module.shape_differs(PostgresEventLogStorage) == []


def test_with_changed_signatures_events_are_written_one_by_one_with_a_warning(
    database_with_dagster: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(module._EXPECTED, "store_asset_event", ("event", "event_id", "shard"))  # type: ignore[index]
    with pytest.warns(UserWarning, match="store_asset_event.*one by one"):
        storage = BatchedEventLogStorage(
            with_tested_driver(with_search_path(database_with_dagster, "dagster"))
        )
    storage.store_event_batch([planned(n, STATS, f"p{n}") for n in range(3)])
    assert len(_rows(storage, "event_logs")) == 3
    assert _writes(storage) == 3


def test_the_instance_of_the_repository_loads_with_its_storage_and_batches(
    make_database: Callable[..., str], project_root: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("DAGSTER_HOME", str(tmp_path))
    monkeypatch.setenv("DAGSTER_POSTGRES_URL", make_database(migrated=False))
    monkeypatch.setenv("DAGSTER_EVENT_BATCH_SIZE", "")
    monkeypatch.delenv("DAGSTER_EVENT_BATCH_SIZE")
    (tmp_path / "dagster.yaml").write_text((project_root / "dagster.yaml").read_text())
    with dg.DagsterInstance.get() as instance:
        assert isinstance(instance.event_log_storage, BatchedEventLogStorage)
        assert stock_storage_note(instance, 10_000) == ""
        assert os.environ["DAGSTER_EVENT_BATCH_SIZE"] == "1000"
        assert instance.run_monitoring_start_timeout_seconds >= 600
        assert instance.run_monitoring_max_runtime_seconds == 0
        assert instance.get_concurrency_config().run_queue_config
        instance.add_dynamic_partitions("loads", ["a"])
        assert instance.get_dynamic_partitions("loads") == ["a"]


def test_a_batch_size_from_the_environment_is_kept(
    database_with_dagster: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DAGSTER_EVENT_BATCH_SIZE", "250")
    BatchedPostgresStorage(with_search_path(database_with_dagster, "dagster"))
    assert os.environ["DAGSTER_EVENT_BATCH_SIZE"] == "250"


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ("postgresql://u:p@h/d", "postgresql+psycopg2://u:p@h/d"),
        ("postgres://u@/d?host=/run", "postgresql+psycopg2://u@/d?host=/run"),
        ("postgresql+psycopg2://h/d", "postgresql+psycopg2://h/d"),
    ],
)
def test_a_url_without_a_driver_gets_the_driver_that_dagster_needs(given: str, expected: str) -> None:
    assert with_tested_driver(given) == expected
