"""Steps that move events from the outbox to NATS: the last of an import's run, and the one that stands alone."""

from typing import Any

import dagster as dg

from dagster_backfills.defs.kintell.resources import KintellSettings
from dagster_backfills.lib.postgres.resource import PostgresResource


@dg.op(
    name="publish",
    out=dg.Out(dict, io_manager_key="kintell_handoff"),
    description="Send waiting events to NATS JetStream.",
)
def publish_events(
    context: dg.OpExecutionContext,
    reported: dict[str, Any],
    postgres: PostgresResource,
    kintell: KintellSettings,
) -> dict[str, int]:
    return publish(context, postgres, kintell, must=False)


def publish(
    context: dg.OpExecutionContext, postgres: PostgresResource, kintell: KintellSettings, *, must: bool
) -> dict[str, int]:
    """Drain the outbox. Where NATS can't be reached events wait, and only with `must` that is a failure."""
    from dagster_backfills.defs.kintell.outbox import NatsUnavailable, publish_waiting

    if not kintell.nats:
        context.log.info("KINTELL_NATS_URL is not set; events wait.")
        return {"events": 0, "again": 0}
    try:
        done = publish_waiting(postgres.libpq_url, kintell.nats, kintell.stream_name)
    except NatsUnavailable as error:
        if must:
            raise dg.Failure(str(error), allow_retries=False) from error
        context.log.warning(f"{error} Events wait.")
        return {"events": 0, "again": 0}
    if done.busy:
        context.log.info("Another publisher is at work.")
    context.add_output_metadata({"events": done.events, "stored before": done.again})
    return {"events": done.events, "again": done.again}
