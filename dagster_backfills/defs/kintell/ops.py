"""What an import's run does: register, import, report, publish. Thin: the work is done elsewhere.

All of it is one step, and what it goes by is in the database: a retry finds its job wherever it runs. What reads
files, judges rows and speaks NATS is imported by the functions that call it: a code location needs none of that.
"""

import time
from collections.abc import Iterator
from contextlib import contextmanager

import dagster as dg
import fsspec
import psycopg

from dagster_backfills.dagster.resource import PostgresResource
from dagster_backfills.defs.kintell.config import ImportSessions
from dagster_backfills.defs.kintell.reporting import (
    import_materialization,
    preflight_metadata,
    verdict_metadata,
)
from dagster_backfills.defs.kintell.resources import KintellSettings
from dagster_backfills.domains.kintell.after.error_file import write_error_file
from dagster_backfills.domains.kintell.file.files import open_file
from dagster_backfills.domains.kintell.importing.account import ImportJob, load_job
from dagster_backfills.domains.kintell.importing.claims import ClaimLost, TooManyImports
from dagster_backfills.domains.kintell.importing.options import Progress
from dagster_backfills.domains.kintell.statements import statements
from dagster_backfills.errors import UserError
from dagster_backfills.redact import redact

LOG_SECONDS = 2.0


@contextmanager
def in_words() -> Iterator[None]:
    """What a person can mend becomes a failure that says so, and that no retry mends."""
    try:
        yield
    except (UserError, ClaimLost) as error:
        raise dg.Failure(redact(str(error)), allow_retries=False) from error


@contextmanager
def connected(postgres: PostgresResource) -> Iterator[psycopg.Connection]:
    """A connection on which each statement is its own transaction."""
    with postgres.connect() as conn:
        conn.autocommit = True
        yield conn


@dg.op(description="Register the file, import it from its job's checkpoint to its end, report, publish.")
def import_sessions(
    context: dg.OpExecutionContext,
    config: ImportSessions,
    postgres: PostgresResource,
    kintell: KintellSettings,
) -> None:
    with in_words():
        if config.dry_run:
            return _dry_run(context, config, postgres, kintell)
        with connected(postgres) as conn:
            job = _job_of(context, config, conn, kintell)
        if job is None:
            return None
        if job.status != "completed":
            job = _import(context, config, job, postgres, kintell)
        if job.status == "failed" and config.rollback_on_failure:
            from dagster_backfills.domains.kintell.after.rollback import roll_back

            context.log.warning(f"{job.error_message}. Rolling back.")
            roll_back(postgres.libpq_url, job.id, run_id=context.run_id)
        with connected(postgres) as conn:
            _report(context, conn, job, kintell)
        publish(context, postgres, kintell, must=False)


def _job_of(
    context: dg.OpExecutionContext, config: ImportSessions, conn: psycopg.Connection, kintell: KintellSettings
) -> ImportJob | None:
    """The job to work on; None for a content that was imported before."""
    from dagster_backfills.domains.kintell.file.register import register

    known = _job_of_retried_run(context, config, conn, kintell)
    if known:
        return known
    if config.job:
        job = load_job(conn, config.job)
        job.check_claimable("import")
    else:
        found = register(
            conn,
            config.file,
            kintell.allowed,
            on_duplicate=config.on_duplicate.value,
            read_as=config.read_as(),
            once=config.once,
            run_id=context.run_id,
        )
        job = load_job(conn, found.job)
        if found.existing and job.status == "completed":
            context.log.info(f"This content was imported by job {job.id}; nothing to do.")
            return None
        context.add_output_metadata(preflight_metadata(found.preflight))
        if found.preflight.missing_count and not config.create_missing_users:
            context.log.warning(
                f"{found.preflight.missing_count:,} users are missing; their rows will be rejected."
            )
    context.log.info(
        f"Job {job.id}: {job.file_name} ({job.recognized}), {job.total_rows:,} rows, "
        f"{job.processed_rows:,} processed."
    )
    context.instance.add_run_tags(context.run_id, {"kintell/job": str(job.id)})
    return job


def _job_of_retried_run(
    context: dg.OpExecutionContext, config: ImportSessions, conn: psycopg.Connection, kintell: KintellSettings
) -> ImportJob | None:
    """The job of the run that this one retries, if its file is still what it was: it need not be read again."""
    earlier = [run for run in (context.run.parent_run_id, context.run.root_run_id) if run]
    found = statements().job_of_runs(conn, run_ids=earlier) if earlier else None
    if found is None:
        return None
    job = load_job(conn, found)
    if config.job:
        return job if config.job == str(job.id) else None
    source = open_file(config.file, kintell.allowed)
    same = (job.file_url, job.file_stamp) == (source.url, source.stamp())
    return job if same and job.status not in ("cancelled", "rolled_back") else None


def _import(
    context: dg.OpExecutionContext,
    config: ImportSessions,
    job: ImportJob,
    postgres: PostgresResource,
    kintell: KintellSettings,
) -> ImportJob:
    from dagster_backfills.domains.kintell.importing.importer import run_import

    log = _Log(context)
    said = False
    while True:
        try:
            return run_import(
                postgres.libpq_url,
                job.id,
                config.options(),
                kintell.allowed,
                run_id=context.run_id,
                on_progress=log.progress,
                on_trouble=context.log.warning,
            )
        except TooManyImports as error:
            if not said:
                context.log.info(str(error))
            said = True
            time.sleep(LOG_SECONDS)
        except (KeyboardInterrupt, dg.DagsterExecutionInterruptedError):
            with connected(postgres) as conn:
                context.log.info(f"Job {job.id} is {load_job(conn, job.id).status}.")
            raise


def _dry_run(
    context: dg.OpExecutionContext,
    config: ImportSessions,
    postgres: PostgresResource,
    kintell: KintellSettings,
) -> None:
    from dagster_backfills.domains.kintell.rows.dry_run import validate

    url = kintell.error_file(f"dry-run-{context.run_id}")
    # With a byte-order mark, as spreadsheets want it: whether one is needed is known at the end.
    with (
        connected(postgres) as conn,
        fsspec.open(url, "w", encoding="utf-8-sig", newline="", auto_mkdir=True) as errors,
    ):
        verdict = validate(
            conn,
            config.file,
            kintell.allowed,
            on_duplicate=config.on_duplicate.value,
            read_as=config.read_as(),
            error_file=errors,
        )
    context.add_output_metadata(verdict_metadata(verdict, url))
    context.log.info(
        f"{verdict.recognized}. "
        f"{verdict.new:,} new, {verdict.changed:,} changed, {verdict.same:,} the same, "
        f"{verdict.failed:,} would be rejected."
    )


class _Log:
    """Progress in the run's log, every other second and at the end."""

    def __init__(self, context: dg.OpExecutionContext) -> None:
        self.context, self.next = context, 0.0

    def progress(self, progress: Progress) -> None:
        if time.monotonic() >= self.next or progress.processed == progress.total:
            self.next = time.monotonic() + LOG_SECONDS
            self.context.log.info(str(progress))


def _report(
    context: dg.OpExecutionContext, conn: psycopg.Connection, job: ImportJob, kintell: KintellSettings
) -> None:
    """Write the error file and report the outcome; a job that was stopped fails the run."""
    job = load_job(conn, job.id)
    if job.failed_rows:
        url = kintell.error_file(job.id)
        write_error_file(conn, job.id, url)
        statements().set_error_file(conn, job=job.id, url=url)
        job = load_job(conn, job.id)
    materialization = import_materialization(conn, job)
    context.log_event(materialization)
    context.add_output_metadata(dict(materialization.metadata))
    if job.status in ("failed", "rolled_back"):
        raise dg.Failure(
            f"Job {job.id} is {job.status}. {job.error_message or ''}",
            metadata=dict(materialization.metadata),
            allow_retries=False,
        )


def publish(
    context: dg.OpExecutionContext, postgres: PostgresResource, kintell: KintellSettings, *, must: bool
) -> None:
    """Drain the outbox. Where NATS can't be reached events wait, and only with `must` that is a failure."""
    from dagster_backfills.domains.kintell.events.outbox import NatsUnavailable, publish_waiting

    if not kintell.nats:
        context.log.info("KINTELL_NATS_URL is not set; events wait.")
        return
    try:
        done = publish_waiting(postgres.libpq_url, kintell.nats, kintell.stream_name)
    except NatsUnavailable as error:
        if must:
            raise dg.Failure(str(error), allow_retries=False) from error
        context.log.warning(f"{error} Events wait.")
        return
    if done.busy:
        context.log.info("Another publisher is at work.")
    context.add_output_metadata({"events": done.events, "stored before": done.again})
