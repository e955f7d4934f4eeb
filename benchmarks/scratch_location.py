"""A partitioned asset that does no work, to time what Dagster does around it."""

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import dagster as dg

from dagster_backfills.lib.partition_events import materialization_events

COHORTS = dg.DynamicPartitionsDefinition(name="bench_cohorts")
KEY = dg.AssetKey(["bench", "stats"])


def failing() -> set[str]:
    path = Path(os.environ["BENCH_FAILING"])
    return set(json.loads(path.read_text())) if path.exists() else set()


def report(context: Any, keys: list[str]) -> Iterator[Any]:
    bad = failing()
    good = [key for key in keys if key not in bad]
    for start in range(0, len(good), 1000):
        yield from materialization_events(
            context,
            [
                dg.AssetMaterialization(KEY, partition=k, metadata={"rows": 3})
                for k in good[start : start + 1000]
            ],
        )
    left = sorted(bad.intersection(keys))
    if left:
        raise dg.Failure(f"{len(left)} partitions failed: {', '.join(left[:20])}", allow_retries=False)


class Reporter(dg.ConfigurableIOManager):
    def handle_output(self, context: dg.OutputContext, obj: object) -> Iterator[Any]:
        yield from report(context, context.asset_partition_keys)

    def load_input(self, context: dg.InputContext) -> None:
        return None


@dg.asset(
    key=KEY, partitions_def=COHORTS, backfill_policy=dg.BackfillPolicy.single_run(), io_manager_key="reporter"
)
def stats(context: dg.AssetExecutionContext) -> int:
    return len(context.partition_keys)


@dg.op(config_schema={"keys": [str]})
def recompute(context: dg.OpExecutionContext) -> Iterator[Any]:
    yield from report(context, context.op_config["keys"])
    yield dg.Output(None)


@dg.job(executor_def=dg.in_process_executor)
def repair() -> None:
    recompute()


defs = dg.Definitions(
    assets=[stats], jobs=[repair], resources={"reporter": Reporter()}, executor=dg.in_process_executor
)
