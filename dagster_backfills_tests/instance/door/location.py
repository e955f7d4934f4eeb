"""A location of two domains, with a job of one of them and one that undoes runs."""

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


class Undo(dg.Config):
    run: str


@dg.op
def undo_it(config: Undo) -> None:
    pass


@dg.config_mapping
def _flat(config: Undo) -> dict[str, object]:
    return {"ops": {"undo_it": {"config": {"run": config.run}}}}


@dg.job(config=_flat, tags={"backfills/domain": "operations", "backfills/right": "undo"})
def undo_run() -> None:
    undo_it()


defs = dg.Definitions(
    assets=[completions, stats],
    jobs=[refresh_training, nobodys, undo_run, dg.define_asset_job("fill_stats", [stats])],
)
