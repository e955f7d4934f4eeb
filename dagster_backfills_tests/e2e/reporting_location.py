"""A code location for the tests of reporting: a partitioned asset that fails for the keys in a file, and its repair."""

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import dagster as dg

from dagster_backfills.dagster import partition_events

COHORTS = dg.DynamicPartitionsDefinition(name="reported_cohorts")
KEY = dg.AssetKey(["reported", "stats"])


def _report(context: Any, keys: list[str]) -> Iterator[Any]:
    bad = set(json.loads(Path(os.environ["FAILING_COHORTS"]).read_text()))
    good = [key for key in keys if key not in bad]
    for start in range(0, len(good), int(os.environ.get("REPORT_BATCH", "7"))):
        yield from partition_events.Reporter(context).report(
            [
                dg.AssetMaterialization(KEY, partition=key, metadata={"rows": 3})
                for key in good[start : start + int(os.environ.get("REPORT_BATCH", "7"))]
            ],
        )
    failed = sorted(bad.intersection(keys))
    if failed:
        raise dg.Failure(f"{len(failed)} partitions failed: {', '.join(failed)}", allow_retries=False)


class Reporter(dg.ConfigurableIOManager):
    def handle_output(self, context: dg.OutputContext, obj: object) -> Iterator[Any]:
        yield from _report(context, context.asset_partition_keys)

    def load_input(self, context: dg.InputContext) -> None:
        return None


@dg.asset(
    key=KEY,
    partitions_def=COHORTS,
    backfill_policy=dg.BackfillPolicy.single_run(),
    io_manager_key="reporter",
)
def stats(context: dg.AssetExecutionContext) -> int:
    return len(context.partition_keys)


@dg.op(config_schema={"keys": [str]})
def recompute(context: dg.OpExecutionContext) -> Iterator[Any]:
    keys = context.op_config["keys"]
    partition_events.announce_partitions(context, [KEY], keys)
    yield from _report(context, keys)
    yield dg.Output(None)


@dg.job
def repair() -> None:
    recompute()


defs = dg.Definitions(
    assets=[stats],
    jobs=[repair],
    resources={"reporter": Reporter()},
    executor=dg.in_process_executor,
)
