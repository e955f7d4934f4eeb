"""What an import's run does: register, import, report, publish. Thin: the work is done elsewhere.

All of it is one step, and what it goes by is in the database: a retry finds its job wherever it runs. What reads
files, judges rows and speaks NATS is imported by the functions that call it: a code location needs none of that.
"""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

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
from dagster_backfills.domains.kintell.importing.claims import TooManyImports
from dagster_backfills.domains.kintell.importing.options import Progress
from dagster_backfills.domains.kintell.statements import STATEMENTS

LOG_SECONDS = 2.0


@contextmanager
def connected(postgres: PostgresResource) -> Iterator[psycopg.Connection]:
    """A connection on which each statement is its own transaction."""
    with postgres.connect() as conn:
        conn.autocommit = True
        yield conn


@dataclass
class Import:
    """One run, and what it was given. `next_log`: progress is logged every other second."""

    context: dg.OpExecutionContext
    config: ImportSessions
    postgres: PostgresResource
    kintell: KintellSettings
    next_log: float = 0.0

    def run(self) -> None:
        if self.config.dry_run:
            return self.dry_run()
        with connected(self.postgres) as conn:
            job = self.retried_job(conn) or self.job(conn)
        if job is None:
            return None
        if job.status != "completed":
            job = self.import_(job)
        if job.status == "failed" and self.config.rollback_on_failure:
            from dagster_backfills.domains.kintell.after.rollback import roll_back

            self.context.log.warning(f"{job.error_message}. Rolling back.")
            roll_back(self.postgres.libpq_url, job.id, run_id=self.context.run_id)
        with connected(self.postgres) as conn:
            self.report(conn, job)
        publish(self.context, self.postgres, self.kintell, must=False)

    def retried_job(self, conn: psycopg.Connection) -> ImportJob | None:
        """The job of the run that this one retries, if its file is still what it was: it need not be read again."""
        run = self.context.run
        earlier = [each for each in (run.parent_run_id, run.root_run_id) if each]
        found = STATEMENTS.job_of_runs(conn, run_ids=earlier) if earlier else None
        if found is None:
            return None
        job = load_job(conn, found)
        if self.config.job:
            return job if self.config.job == str(job.id) else None
        source = open_file(self.config.file, self.kintell.allowed)
        same = (job.file_url, job.file_stamp) == (source.url, source.stamp())
        return job if same and job.status not in ("cancelled", "rolled_back") else None

    def job(self, conn: psycopg.Connection) -> ImportJob | None:
        """The job to work on; None for content that was imported before."""
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

        found = register(
            conn,
            self.config.file,
            self.kintell.allowed,
            on_duplicate=self.config.on_duplicate.value,
            read_as=self.config.read_as(),
            once=self.config.once,
            run_id=self.context.run_id,
        )
        job = load_job(conn, found.job)
        if found.existing and job.status == "completed":
            self.context.log.info(f"This content was imported by job {job.id}; nothing to do.")
            return None
        self.context.add_output_metadata(preflight_metadata(found.preflight))
        if found.preflight.missing_count and not self.config.create_missing_users:
            self.context.log.warning(
                f"{found.preflight.missing_count:,} users are missing; their rows will be rejected."
            )
        return job

    def import_(self, job: ImportJob) -> ImportJob:
        from dagster_backfills.domains.kintell.importing.importer import run_import

        said = False
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
                if not said:
                    self.context.log.info(str(error))
                said = True
                time.sleep(LOG_SECONDS)
            except (KeyboardInterrupt, dg.DagsterExecutionInterruptedError):
                with connected(self.postgres) as conn:
                    self.context.log.info(f"Job {job.id} is {load_job(conn, job.id).status}.")
                raise

    def log_progress(self, progress: Progress) -> None:
        if time.monotonic() >= self.next_log or progress.processed == progress.total:
            self.next_log = time.monotonic() + LOG_SECONDS
            self.context.log.info(str(progress))

    def dry_run(self) -> None:
        from dagster_backfills.domains.kintell.rows.dry_run import validate

        url = self.kintell.error_file(f"dry-run-{self.context.run_id}")
        # With a byte-order mark, as spreadsheets want it: whether one is needed is known at the end.
        with (
            connected(self.postgres) as conn,
            fsspec.open(url, "w", encoding="utf-8-sig", newline="", auto_mkdir=True) as errors,
        ):
            verdict = validate(
                conn,
                self.config.file,
                self.kintell.allowed,
                on_duplicate=self.config.on_duplicate.value,
                read_as=self.config.read_as(),
                error_file=errors,
            )
        self.context.add_output_metadata(verdict_metadata(verdict, url))
        self.context.log.info(
            f"{verdict.recognized}. "
            f"{verdict.new:,} new, {verdict.changed:,} changed, {verdict.same:,} the same, "
            f"{verdict.failed:,} would be rejected."
        )

    def report(self, conn: psycopg.Connection, job: ImportJob) -> None:
        """Write the error file and report the outcome; a job that was stopped fails the run."""
        job = load_job(conn, job.id)
        if job.failed_rows:
            url = self.kintell.error_file(job.id)
            write_error_file(conn, job.id, url)
            STATEMENTS.set_error_file(conn, job=job.id, url=url)
            job = load_job(conn, job.id)
        materialization = import_materialization(conn, job)
        self.context.log_event(materialization)
        self.context.add_output_metadata(dict(materialization.metadata))
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
