"""The step of an import run: register, import, report, publish. Not here: how each of them works (`domains`).

The run has a single step whose state is in the database, so a retry finds its job on any machine. The modules that read
files, validate rows and connect to NATS are imported inside functions, because a code location does not need them.
"""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import dagster as dg
import psycopg

from dagster_backfills.dagster.resource import PostgresResource
from dagster_backfills.defs.kintell.config import ImportSessions
from dagster_backfills.defs.kintell.reporting import (
    import_materialization,
    preflight_metadata,
    preview_metadata,
)
from dagster_backfills.defs.kintell.resources import KintellSettings
from dagster_backfills.domains.kintell.after.error_file import write_error_file
from dagster_backfills.domains.kintell.file.files import open_file
from dagster_backfills.domains.kintell.importing.claims import TooManyImports
from dagster_backfills.domains.kintell.importing.jobs import ImportJob, Progress, load_job
from dagster_backfills.domains.kintell.importing.retries import retry_transient
from dagster_backfills.domains.kintell.statements import STATEMENTS

LOG_SECONDS = 2.0


@contextmanager
def autocommit_connection(postgres: PostgresResource) -> Iterator[psycopg.Connection]:
    """A connection on which each statement commits by itself."""
    with postgres.connect() as conn:
        conn.autocommit = True
        yield conn


@dataclass
class ImportRun:
    """One import run. `next_log`: the time at which progress may be logged again."""

    context: dg.OpExecutionContext
    config: ImportSessions
    postgres: PostgresResource
    kintell: KintellSettings
    next_log: float = 0.0

    def run(self) -> None:
        if self.config.dry_run:
            return self.dry_run()
        job = retry_transient(self.job, on_trouble=self.context.log.warning)
        if job is None:
            return None
        if job.status != "completed":
            job = self.import_(job)
        if job.status == "failed" and self.config.rollback_on_failure:
            from dagster_backfills.domains.kintell.after.rollback import roll_back

            self.context.log.warning(f"{job.error_message}. Rolling back.")
            roll_back(self.postgres.libpq_url, job.id, run_id=self.context.run_id)
        with autocommit_connection(self.postgres) as conn:
            self.report(conn, job)
        publish(self.context, self.postgres, self.kintell, required=False)

    def job(self) -> ImportJob | None:
        """The job to import. The inbox sensor requests each file once, so a lost connection must not end the run."""
        with autocommit_connection(self.postgres) as conn:
            return self.retried_job(conn) or self.find_job(conn)

    def retried_job(self, conn: psycopg.Connection) -> ImportJob | None:
        """The job of the run that this run retries, if its file has not changed. The file is not registered again."""
        run = self.context.run
        earlier_runs = [run_id for run_id in (run.parent_run_id, run.root_run_id) if run_id]
        job_id = STATEMENTS.job_of_runs(conn, run_ids=earlier_runs) if earlier_runs else None
        if job_id is None:
            return None
        job = load_job(conn, job_id)
        if self.config.job:
            return job if self.config.job == str(job.id) else None
        source = open_file(self.config.file, self.kintell.allowed)
        same = (job.file_url, job.file_stamp) == (source.url, source.stamp())
        return job if same and job.status not in ("cancelled", "rolled_back") else None

    def find_job(self, conn: psycopg.Connection) -> ImportJob | None:
        """The job to resume, or a new job for the file. None if its content was imported before."""
        job = load_job(conn, self.config.job) if self.config.job else self.registered_job(conn)
        if job is None:
            return None
        if self.config.job:
            job.check_claimable("import")
        self.context.log.info(
            f"Job {job.id}: {job.file_name} ({job.recognized}), {job.total_rows:,} rows, "
            f"{job.processed_rows:,} processed."
        )
        self.context.instance.add_run_tags(self.context.run_id, {"kintell/job": str(job.id)})
        return job

    def registered_job(self, conn: psycopg.Connection) -> ImportJob | None:
        from dagster_backfills.domains.kintell.file.register import register

        registration = register(
            conn,
            self.config.file,
            self.kintell.allowed,
            on_duplicate=self.config.on_duplicate.value,
            read_as=self.config.read_as(),
            once=self.config.once,
            run_id=self.context.run_id,
        )
        job, checks = load_job(conn, registration.job), registration.preflight
        if registration.existing and job.status == "completed":
            self.context.log.info(f"This content was already imported by job {job.id}. Nothing to do.")
            return None
        self.context.add_output_metadata(preflight_metadata(job, checks))
        if checks.missing and not self.config.create_missing_users:
            self.context.log.warning(
                f"{len(checks.missing):,} users are missing; their rows will be rejected."
            )
        return job

    def import_(self, job: ImportJob) -> ImportJob:
        from dagster_backfills.domains.kintell.importing.importer import run_import

        waiting = False
        while True:
            try:
                return run_import(
                    self.postgres.libpq_url,
                    job.id,
                    self.config.options(),
                    self.kintell.allowed,
                    run_id=self.context.run_id,
                    on_progress=self.log_progress,
                    on_trouble=self.context.log.warning,
                )
            except TooManyImports as error:
                if not waiting:
                    self.context.log.info(str(error))
                waiting = True
                time.sleep(LOG_SECONDS)
            except (KeyboardInterrupt, dg.DagsterExecutionInterruptedError):
                with autocommit_connection(self.postgres) as conn:
                    self.context.log.info(f"Job {job.id} is {load_job(conn, job.id).status}.")
                raise

    def log_progress(self, progress: Progress) -> None:
        if time.monotonic() >= self.next_log or progress.processed == progress.total:
            self.next_log = time.monotonic() + LOG_SECONDS
            self.context.log.info(str(progress))

    def dry_run(self) -> None:
        from dagster_backfills.domains.kintell.rows.dry_run import validate

        url = self.kintell.error_file(f"dry-run-{self.context.run_id}")
        with autocommit_connection(self.postgres) as conn:
            preview = validate(
                conn,
                self.config.file,
                self.kintell.allowed,
                on_duplicate=self.config.on_duplicate.value,
                read_as=self.config.read_as(),
                error_file=url,
            )
        self.context.add_output_metadata(preview_metadata(preview, url))
        self.context.log.info(
            f"{preview.recognized}. "
            f"{preview.new:,} new, {preview.changed:,} changed, {preview.same:,} the same, "
            f"{preview.failed:,} would be rejected."
        )

    def report(self, conn: psycopg.Connection, job: ImportJob) -> None:
        """Write the error file and report the result. Fails the run if the job failed or was rolled back."""
        job = with_error_file(conn, load_job(conn, job.id), self.kintell)
        materialization = import_materialization(conn, job)
        self.context.log_event(materialization)
        self.context.add_output_metadata(dict(materialization.metadata))
        if job.status in ("failed", "rolled_back"):
            raise dg.Failure(
                f"Job {job.id} is {job.status}. {job.error_message or ''}",
                metadata=dict(materialization.metadata),
                allow_retries=False,
            )


def with_error_file(conn: psycopg.Connection, job: ImportJob, kintell: KintellSettings) -> ImportJob:
    """Write the job's error file, if it has rejected rows or had some, and note its location in the job."""
    if not job.failed_rows and not job.error_file:
        return job
    url = kintell.error_file(job.id)
    write_error_file(conn, job.id, url)
    STATEMENTS.set_error_file(conn, job=job.id, url=url)
    return load_job(conn, job.id)


def publish(
    context: dg.OpExecutionContext, postgres: PostgresResource, kintell: KintellSettings, *, required: bool
) -> None:
    """Publish all waiting events. If NATS is unreachable they wait; with `required`, the run fails."""
    from dagster_backfills.domains.kintell.events.outbox import NatsUnavailable, publish_waiting

    if not kintell.nats:
        context.log.info("KINTELL_NATS_URL is not set, so events wait.")
        return
    try:
        done = publish_waiting(postgres.libpq_url, kintell.nats, kintell.stream_name)
    except NatsUnavailable as error:
        if required:
            raise dg.Failure(str(error), allow_retries=False) from error
        context.log.warning(f"{error} Events wait.")
        return
    if done.busy:
        context.log.info("Another publisher is at work.")
    context.add_output_metadata({"events": done.events, "stored before": done.already_stored})
