"""Materializes assets into a test's database, and reads what Dagster has recorded."""

from collections import Counter
from functools import cache
from typing import Any

import dagster as dg
import pandas as pd
import psycopg

from dagster_backfills.dagster.io_manager import PostgresIOManager
from dagster_backfills.dagster.resource import PostgresResource

FIRST, LAST = "dagster/asset_partition_range_start", "dagster/asset_partition_range_end"
COHORTS = dg.DynamicPartitionsDefinition(name="events_cohorts")
RANGE = ("dagster/asset_partition_range_start", "dagster/asset_partition_range_end")


def resources(url: str, **settings: Any) -> dict[str, Any]:
    postgres = PostgresResource(url=url)
    return {"postgres": postgres, "io_manager": PostgresIOManager(postgres=postgres, **settings)}


def materialize(
    url: str, *assets: Any, keys: tuple[str, str] | None = None, expect: bool = True, **options: Any
) -> dg.ExecuteInProcessResult:
    """Materializes assets. `keys`: the first and last partition of a run's range.

    Without `instance`, uses an instance that all tests share that do not query it.
    """
    settings = options.pop("settings", {})
    options.setdefault("instance", _anybodys_instance())
    if keys is not None:
        options["tags"] = {**options.get("tags", {}), FIRST: keys[0], LAST: keys[1]}
    result = dg.materialize(
        list(assets), resources=resources(url, **settings), raise_on_error=False, **options
    )
    if expect and not result.success:
        raise AssertionError(failure_text(result))
    return result


@cache
def _anybodys_instance() -> dg.DagsterInstance:
    return dg.DagsterInstance.ephemeral()


def failure_text(result: dg.ExecuteInProcessResult) -> str:
    """The failed step's message: the description of its Failure, or the error."""
    texts = []
    for event in result.all_events:
        if event.is_step_failure:
            data = event.step_failure_data
            texts.append(data.user_failure_data.description or "" if data.user_failure_data else "")
            texts.append(data.error.to_string() if data.error else "")
    return "\n".join(texts)


def failure_description(result: dg.ExecuteInProcessResult) -> str:
    """The description of the only Failure of the run's steps."""
    [event] = [e for e in result.all_events if e.is_step_failure]
    assert event.step_failure_data.user_failure_data is not None, failure_text(result)
    return event.step_failure_data.user_failure_data.description or ""


def materialized(result: dg.ExecuteInProcessResult, asset: str) -> Counter[str | None]:
    """The number of materializations of each partition of an asset."""
    return Counter(m.partition for m in materializations(result, asset))


def materializations(result: dg.ExecuteInProcessResult, asset: str) -> list[dg.AssetMaterialization]:
    key = dg.AssetKey(asset.split("/"))
    return [
        event.materialization
        for event in result.all_events
        if event.is_step_materialization and event.asset_key == key
    ]


def metadata(result: dg.ExecuteInProcessResult, asset: str, partition: str | None = None) -> dict[str, Any]:
    [found] = [m for m in materializations(result, asset) if m.partition == partition]
    return {name: value.value for name, value in found.metadata.items()}


def rows(conn: psycopg.Connection, table: str, order: str = "1") -> list[tuple[Any, ...]]:
    return conn.execute(f"select * from {table} order by {order}").fetchall()  # noqa: S608


def versions(conn: psycopg.Connection, table: str) -> list[tuple[Any, ...]]:
    """Each row's ctid and xmin, which change only if the row is written."""
    return conn.execute(f"select ctid::text, xmin::text from {table} order by 1").fetchall()  # noqa: S608


def open_failures(conn: psycopg.Connection) -> list[tuple[Any, ...]]:
    """The open failures in the ledger: asset, partition, unit, message, attempts."""
    return conn.execute(
        "select asset, partition, unit, message, attempts from backfill.failures where resolved_at is null"
        " order by asset, partition, unit"
    ).fetchall()


def items(function, name="items", **options):
    options.setdefault("metadata", {"partition_expr": "part"})
    return dg.asset(key_prefix="t", name=name, **options)(function)


def frame(*records):
    return pd.DataFrame(list(records), columns=["part", "id", "v"])


def materializations_of(instance: dg.DagsterInstance, run_id: str) -> list[dg.AssetMaterialization]:
    records = instance.get_records_for_run(run_id, of_type=dg.DagsterEventType.ASSET_MATERIALIZATION).records
    return [record.event_log_entry.asset_materialization for record in records]  # type: ignore[misc]
