"""A code location with jobs that do nothing slowly, or fail, and record it like the engine."""

import time

import dagster as dg

from dagster_backfills.dagster.resource import PostgresResource

_RUN = """
    insert into backfill.runs (run_id, root_run_id, step, assets, partitions, units)
    values (%s, %s, %s, %s, %s, %s)
"""
_BATCH = """
    insert into backfill.batches (batch_id, asset, run_id, step, partitions, snapshot, units,
        rows_inserted, seconds, failures)
    values (gen_random_uuid(), 'a/table', %s, 'work', %s, pg_current_snapshot(), 10, 10, 0.1, %s)
"""


class Work(dg.Config):
    batches: int = 3
    seconds: float = 0
    stubborn: bool = False
    fail: bool = False


@dg.op
def work(context: dg.OpExecutionContext, config: Work) -> None:
    with PostgresResource().connect() as conn:
        conn.autocommit = True
        conn.execute(
            _RUN, [context.run_id, context.run_id, "work", ["a/table"], config.batches, config.batches * 10]
        )
        for number in range(config.batches):
            conn.execute(_BATCH, [context.run_id, [f"p{number}"], int(config.fail)])
            try:
                time.sleep(config.seconds)
            except BaseException:
                if not config.stubborn:
                    raise
    if config.fail:
        raise dg.Failure("It failed on purpose.", allow_retries=False)


@dg.job(executor_def=dg.in_process_executor)
def working_job() -> None:
    work()


@dg.definitions
def defs() -> dg.Definitions:
    return dg.Definitions(jobs=[working_job])
