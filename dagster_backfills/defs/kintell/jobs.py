"""The jobs of the import: starting and resuming, rolling back, replaying, publishing, summarizing days."""

import dagster as dg

from dagster_backfills.defs.kintell import ops
from dagster_backfills.defs.kintell.account import load_job
from dagster_backfills.defs.kintell.assets import daily_summary_write
from dagster_backfills.defs.kintell.checks import RULES
from dagster_backfills.defs.kintell.claims import ClaimLost
from dagster_backfills.defs.kintell.config import ImportSessions, Replay, RollBack
from dagster_backfills.defs.kintell.publishing import publish, publish_events
from dagster_backfills.defs.kintell.reporting import SHOWN, import_materialization
from dagster_backfills.defs.kintell.resources import KintellSettings
from dagster_backfills.defs.kintell.statements import statements
from dagster_backfills.lib.engine.model import WriteSet
from dagster_backfills.lib.errors import UserError
from dagster_backfills.lib.postgres.resource import PostgresResource

TAGS = {"backfills/domain": "kintell"}


@dg.config_mapping
def _one_config(config: ImportSessions) -> dg.RunConfig:
    return dg.RunConfig(ops={name: config for name in ("register", "preflight", "import_sessions")})


@dg.job(
    description="Import historical sessions from a CSV file, or resume an import.",
    config=_one_config,
    executor_def=dg.in_process_executor,
    tags={**TAGS, "kintell/import": "import"},
)
def import_kintell_sessions() -> None:
    registered = ops.register_file()
    checked = ops.preflight_file(registered)
    publish_events(ops.report_outcome(ops.import_rows.with_hooks(RULES.after())(checked)))


@dg.op(
    out=ops.HANDOFF,
    description="Remove what a job inserted, restore what it rewrote, keep what was edited since.",
)
def roll_back_sessions(
    context: dg.OpExecutionContext, config: RollBack, postgres: PostgresResource
) -> ops.Handoff:
    from dagster_backfills.defs.kintell.undo import preview_rollback, roll_back

    try:
        with postgres.connect() as conn:
            conn.autocommit = True
            job = load_job(conn, config.job)
            preview = preview_rollback(conn, job.id)
            context.add_output_metadata(
                {"removes": preview.removes, "restores": preview.restores, "keeps": preview.keeps}
                | ({"kept": preview.kept[:SHOWN]} if preview.kept else {})
            )
            context.log.info(
                f"{preview.removes:,} sessions to remove, {preview.restores:,} to restore, {preview.keeps:,} to keep."
            )
            if config.dry_run:
                return {"job": config.job, "status": job.status}
            done = roll_back(
                postgres.libpq_url,
                job.id,
                run_id=context.run_id,
                on_progress=lambda removed, restored: context.log.info(
                    f"{removed:,} removed, {restored:,} restored."
                ),
            )
            context.log_event(import_materialization(conn, done))
    except (UserError, ClaimLost) as error:
        raise ops.refused(error) from error
    return {"job": config.job, "status": done.status}


@dg.op(out=ops.HANDOFF, description="Import a job's rejected rows that are good by now; no file is needed.")
def replay_errors(context: dg.OpExecutionContext, config: Replay, postgres: PostgresResource) -> ops.Handoff:
    from dagster_backfills.defs.kintell.replay import replay

    try:
        with postgres.connect() as conn:
            conn.autocommit = True
            job = load_job(conn, config.job)
            done = replay(
                postgres.libpq_url,
                job.id,
                create_missing_users=config.create_missing_users,
                run_id=context.run_id,
            )
            context.log_event(import_materialization(conn, done.job))
    except (UserError, ClaimLost) as error:
        raise ops.refused(error) from error
    context.add_output_metadata({"tried": done.tried, "imported": done.imported})
    context.log.info(f"{done.imported:,} of {done.tried:,} rejected rows are imported now.")
    return {"job": config.job, "tried": done.tried, "imported": done.imported}


@dg.op(
    out=dg.Out(dict, io_manager_key="kintell_handoff"),
    description="Send waiting events to NATS JetStream, in order.",
)
def publish_outbox(
    context: dg.OpExecutionContext, postgres: PostgresResource, kintell: KintellSettings
) -> dict[str, int]:
    return publish(context, postgres, kintell, must=True)


@dg.op(
    out=dg.Out(io_manager_key="io_manager"),
    description="Find the days whose sessions changed and summarize them.",
)
def summarize_stale_days(context: dg.OpExecutionContext, postgres: PostgresResource) -> WriteSet:
    with postgres.connect() as conn:
        days = [row[0] for row in statements().stale_days(conn)]
        conn.commit()
    context.log.info(f"{len(days):,} days to summarize.")
    return WriteSet([daily_summary_write()], keys=days)


@dg.job(description="Undo one import.", executor_def=dg.in_process_executor, tags=TAGS, hooks=RULES.after())
def rollback_kintell_import() -> None:
    roll_back_sessions()


@dg.job(
    description="Try a job's rejected rows again.",
    executor_def=dg.in_process_executor,
    tags=TAGS,
    hooks=RULES.after(),
)
def replay_kintell_errors() -> None:
    replay_errors()


@dg.job(
    description="Send waiting events to NATS JetStream.",
    executor_def=dg.in_process_executor,
    tags=TAGS,
    hooks=RULES.after(),
)
def publish_kintell_events() -> None:
    publish_outbox()


@dg.job(
    description="Summarize the days whose sessions changed, in one run.",
    executor_def=dg.in_process_executor,
    tags=TAGS,
)
def refresh_daily_session_summary() -> None:
    summarize_stale_days()
