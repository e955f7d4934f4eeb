"""The jobs of the import: starting and resuming, rolling back, replaying, publishing, summarizing days."""

import dagster as dg

from dagster_backfills.dagster.launchpad import flat
from dagster_backfills.dagster.resource import PostgresResource
from dagster_backfills.defs.kintell.assets import DAILY_SUMMARY, daily_summary_write
from dagster_backfills.defs.kintell.checks import RULES
from dagster_backfills.defs.kintell.config import ImportSessions, Replay, RollBackImport
from dagster_backfills.defs.kintell.ops import connected, import_sessions, in_words, publish
from dagster_backfills.defs.kintell.reporting import SHOWN, import_materialization
from dagster_backfills.defs.kintell.resources import KintellSettings
from dagster_backfills.domains.kintell.importing.account import load_job
from dagster_backfills.domains.kintell.statements import statements
from dagster_backfills.engine.model import WriteSet

TAGS = {"backfills/domain": "kintell"}


@dg.job(
    description="Import historical sessions from a CSV file, or resume an import.",
    config=flat(ImportSessions, "import_sessions"),
    executor_def=dg.in_process_executor,
    tags={**TAGS, "kintell/import": "import"},
)
def import_kintell_sessions() -> None:
    import_sessions.with_hooks(RULES.after())()


@dg.op(description="Remove what a job inserted, restore what it rewrote, keep what was edited since.")
def roll_back_sessions(
    context: dg.OpExecutionContext, config: RollBackImport, postgres: PostgresResource
) -> None:
    # Here and below, what works on rows is loaded by the run and not by the code location.
    from dagster_backfills.domains.kintell.after.rollback import preview_rollback, roll_back

    with in_words(), connected(postgres) as conn:
        job = load_job(conn, config.job)
        preview = preview_rollback(conn, job.id)
        context.add_output_metadata(
            {"removes": preview.removes, "restores": preview.restores, "keeps": preview.keeps}
            | ({"kept": preview.kept[:SHOWN]} if preview.kept else {})
        )
        context.log.info(
            f"{preview.removes:,} sessions to remove, {preview.restores:,} to restore, {preview.keeps:,} to keep"
            f"{'; a dry run, so nothing is changed' if config.dry_run else ''}."
        )
        if config.dry_run:
            return
        done = roll_back(
            postgres.libpq_url,
            job.id,
            run_id=context.run_id,
            on_progress=lambda removed, restored: context.log.info(
                f"{removed:,} removed, {restored:,} restored."
            ),
        )
        context.log_event(import_materialization(conn, done))


@dg.op(description="Import a job's rejected rows that are good by now; no file is needed.")
def replay_errors(context: dg.OpExecutionContext, config: Replay, postgres: PostgresResource) -> None:
    from dagster_backfills.domains.kintell.after.replay import replay

    with in_words(), connected(postgres) as conn:
        job = load_job(conn, config.job)
        done = replay(
            postgres.libpq_url,
            job.id,
            create_missing_users=config.create_missing_users,
            run_id=context.run_id,
        )
        context.log_event(import_materialization(conn, done.job))
    context.add_output_metadata({"tried": done.tried, "imported": done.imported})
    context.log.info(f"{done.imported:,} of {done.tried:,} rejected rows are imported now.")


@dg.op(description="Send waiting events to NATS JetStream, in order.")
def publish_outbox(
    context: dg.OpExecutionContext, postgres: PostgresResource, kintell: KintellSettings
) -> None:
    publish(context, postgres, kintell, must=True)


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


@dg.job(
    description="Roll one import back. A dry run unless dry_run is false.",
    config=flat(RollBackImport, roll_back_sessions.name),
    executor_def=dg.in_process_executor,
    tags={**TAGS, "backfills/right": "undo"},
    hooks=RULES.after(),
)
def rollback_kintell_import() -> None:
    roll_back_sessions()


@dg.job(
    description="Try a job's rejected rows again.",
    config=flat(Replay, replay_errors.name),
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


materialize_daily_session_summary = dg.define_asset_job(
    "materialize_daily_session_summary",
    selection=dg.AssetSelection.assets(DAILY_SUMMARY.asset.split("/")),
    description="Summarize chosen days.",
    tags=TAGS,
)
