"""A code location of two domains, with two jobs in one of them: one launches work and one undoes it."""

import dagster as dg

DAYS = dg.StaticPartitionsDefinition(["one", "two"])


@dg.asset(key=["training", "completions"], group_name="training", partitions_def=DAYS)
def completions() -> None:
    pass


@dg.asset(key=["progress", "stats"], group_name="progress", partitions_def=DAYS)
def stats() -> None:
    pass


@dg.op
def work() -> None:
    pass


@dg.job(tags={"backfills/domain": "training"})
def refresh_training() -> None:
    work()


@dg.job
def nobodys() -> None:
    work()


@dg.job(tags={"backfills/domain": "training", "backfills/right": "undo"})
def undo_training() -> None:
    work()


defs = dg.Definitions(
    assets=[completions, stats],
    jobs=[refresh_training, nobodys, undo_training, dg.define_asset_job("fill_stats", [stats])],
)
