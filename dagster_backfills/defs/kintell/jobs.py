"""The jobs: import or resume, roll back, replay rejected rows, publish events, summarize days."""

import dagster as dg

from dagster_backfills.dagster.failures import without_retry
from dagster_backfills.dagster.jobs import one_step_job
from dagster_backfills.dagster.resource import PostgresResource
from dagster_backfills.defs.kintell.assets import DAILY_SUMMARY, daily_summary_write
from dagster_backfills.defs.kintell.checks import RULES
from dagster_backfills.defs.kintell.config import ImportSessions, Replay, RollBackImport
from dagster_backfills.defs.kintell.ops import ImportRun, autocommit_connection, publish, with_error_file
from dagster_backfills.defs.kintell.reporting import SHOWN, import_materialization
from dagster_backfills.defs.kintell.resources import KintellSettings
from dagster_backfills.domains.kintell.importing.claims import ClaimLost
from dagster_backfills.domains.kintell.importing.jobs import load_job
from dagster_backfills.domains.kintell.statements import STATEMENTS
from dagster_backfills.engine.model import WriteSet


@one_step_job(
    "kintell",
    "Import historical sessions from a CSV file, or resume an import.",
    step="import_sessions",
    hooks=RULES.after(),
    tags={"kintell/import": "import"},
)
def import_kintell_sessions(
    context: dg.OpExecutionContext,
    config: ImportSessions,
    postgres: PostgresResource,
    kintell: KintellSettings,
) -> None:
    """Register the file, import it from the job's checkpoint, report the result and publish its events."""
    with without_retry(ClaimLost):
        ImportRun(context, config, postgres, kintell).run()


@one_step_job(
    "kintell",
    "Roll one import back. A dry run, unless dry_run is false.",
    step="roll_back_sessions",
    hooks=RULES.after(),
    tags={"backfills/right": "undo"},
)
def rollback_kintell_import(
    context: dg.OpExecutionContext, config: RollBackImport, postgres: PostgresResource
) -> None:
    """Remove sessions that the job inserted, restore those it updated, keep those edited since."""
    # Imported here, as in the jobs below, because a code location does not need it.
    from dagster_backfills.domains.kintell.after.rollback import preview_rollback, roll_back

    with without_retry(ClaimLost), autocommit_connection(postgres) as conn:
        job = load_job(conn, config.job)
        preview = preview_rollback(conn, job.id)
        context.add_output_metadata(
            {"removes": preview.removes, "restores": preview.restores, "keeps": preview.keeps}
            | ({"kept": preview.kept[:SHOWN]} if preview.kept else {})
        )
        context.log.info(f"{preview}{' (dry run, nothing was changed)' if config.dry_run else ''}.")
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


@one_step_job("kintell", "Import a job's rejected rows again.", step="replay_errors", hooks=RULES.after())
def replay_kintell_errors(
    context: dg.OpExecutionContext, config: Replay, postgres: PostgresResource, kintell: KintellSettings
) -> None:
    """Import those of a job's rejected rows that are good now. The file is not needed."""
    from dagster_backfills.domains.kintell.after.replay import replay

    with without_retry(ClaimLost), autocommit_connection(postgres) as conn:
        job = load_job(conn, config.job)
        done = replay(
            postgres.libpq_url,
            job.id,
            create_missing_users=config.create_missing_users,
            run_id=context.run_id,
        )
        context.log_event(import_materialization(conn, with_error_file(conn, done.job, kintell)))
    context.add_output_metadata({"tried": done.tried, "imported": done.imported})
    context.log.info(f"Imported {done.imported:,} of {done.tried:,} rejected rows.")


@one_step_job("kintell", "Send waiting events to NATS JetStream.", step="publish_outbox", hooks=RULES.after())
def publish_kintell_events(
    context: dg.OpExecutionContext, postgres: PostgresResource, kintell: KintellSettings
) -> None:
    """Send waiting events to NATS JetStream, in order."""
    publish(context, postgres, kintell, required=True)


@one_step_job(
    "kintell",
    "Summarize all days whose sessions changed, in one run.",
    step="summarize_stale_days",
    out=dg.Out(io_manager_key="io_manager"),
)
def refresh_daily_session_summary(context: dg.OpExecutionContext, postgres: PostgresResource) -> WriteSet:
    """Find the days whose sessions changed and summarize them."""
    with postgres.connect() as conn:
        days = [row[0] for row in STATEMENTS.stale_days(conn)]
        conn.commit()
    context.log.info(f"Days to summarize: {len(days):,}.")
    return WriteSet([daily_summary_write()], keys=days)


materialize_daily_session_summary = dg.define_asset_job(
    "materialize_daily_session_summary",
    selection=dg.AssetSelection.assets(DAILY_SUMMARY.asset.split("/")),
    description="Summarize selected days.",
    tags={"backfills/domain": "kintell"},
)
