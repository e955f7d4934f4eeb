"""The steps of an import run: register → preflight → import → report → publish. Thin: the work is done elsewhere."""

import time
from typing import Any
from uuid import UUID

import dagster as dg

from dagster_backfills.defs.kintell.account import Job, load_job, set_status
from dagster_backfills.defs.kintell.claims import ClaimLost, TooManyImports
from dagster_backfills.defs.kintell.config import ImportSessions
from dagster_backfills.defs.kintell.files import open_file
from dagster_backfills.defs.kintell.importer import Progress, get_ready, open_unchanged, run_import
from dagster_backfills.defs.kintell.reader import read_header
from dagster_backfills.defs.kintell.register import Preflight, preflight, register
from dagster_backfills.defs.kintell.reporting import (
    import_materialization,
    preflight_metadata,
    verdict_metadata,
)
from dagster_backfills.defs.kintell.resources import KintellSettings
from dagster_backfills.defs.kintell.statements import statements
from dagster_backfills.lib.errors import UserError
from dagster_backfills.lib.postgres.resource import PostgresResource
from dagster_backfills.lib.redact import redact

HANDOFF = dg.Out(io_manager_key="kintell_handoff")
LOG_SECONDS = 2.0
Handoff = dict[str, Any]


def refused(error: UserError | ClaimLost) -> dg.Failure:
    """A failure that says what to do, and that no retry mends."""
    return dg.Failure(redact(str(error)), allow_retries=False)


@dg.op(
    name="register",
    out=HANDOFF,
    description="Digest the file, read its header, count and look at its rows, make its job.",
)
def register_file(
    context: dg.OpExecutionContext,
    config: ImportSessions,
    postgres: PostgresResource,
    kintell: KintellSettings,
) -> Handoff:
    if bool(config.file) == bool(config.job):
        raise dg.Failure("Give either `file`, to start, or `job`, to resume.", allow_retries=False)
    get_ready()
    try:
        with postgres.connect() as conn:
            conn.autocommit = True
            looked: Preflight | None = None
            if config.job:
                job = load_job(conn, config.job)
            elif config.dry_run:
                read_header(open_file(config.file, kintell.allowed))
                return {"job": "", "done": False, "looked": None}
            else:
                found = register(
                    conn,
                    config.file,
                    kintell.allowed,
                    on_duplicate=config.on_duplicate.value,
                    once=config.once,
                )
                job, looked = load_job(conn, found.job), found.preflight
                if found.existing and job.status == "completed":
                    context.log.info(f"This content was imported by job {job.id}; nothing to do.")
                    return {"job": str(job.id), "done": True}
    except UserError as error:
        raise refused(error) from error
    context.add_output_metadata({"job": str(job.id), "rows": job.total_rows, "sha256": job.file_sha256})
    context.log.info(
        f"Job {job.id}: {job.file_name}, {job.total_rows:,} rows, {job.processed_rows:,} processed."
    )
    context.instance.add_run_tags(context.run_id, {"kintell/job": str(job.id)})
    return {"job": str(job.id), "done": False, "looked": looked}


@dg.op(
    name="preflight", out=HANDOFF, description="Say what is to come: a judged sample, and the missing users."
)
def preflight_file(
    context: dg.OpExecutionContext,
    config: ImportSessions,
    registered: Handoff,
    postgres: PostgresResource,
    kintell: KintellSettings,
) -> Handoff:
    if registered["done"]:
        return registered
    handoff = {"job": registered["job"], "done": False}
    try:
        with postgres.connect() as conn:
            conn.autocommit = True
            if registered["job"]:
                job = load_job(conn, registered["job"])
                if job.last_processed_row:
                    return handoff  # a resume starts at once; what is missing was listed before
                found = registered["looked"] or preflight(
                    conn, open_unchanged(job, kintell.allowed), job.header, job.checkpoint_offset
                )
                statements().set_missing_users(conn, job=job.id, missing=found.missing_count)
            else:
                source = open_file(config.file, kintell.allowed)
                found = preflight(conn, source, read_header(source))
    except UserError as error:
        raise refused(error) from error
    context.add_output_metadata(preflight_metadata(found))
    if found.missing_count and not config.create_missing_users:
        context.log.warning(f"{found.missing_count:,} users are missing; their rows will be rejected.")
    return handoff


@dg.op(
    name="import_sessions", out=HANDOFF, description="Import the file from the job's checkpoint to its end."
)
def import_rows(
    context: dg.OpExecutionContext,
    config: ImportSessions,
    checked: Handoff,
    postgres: PostgresResource,
    kintell: KintellSettings,
) -> Handoff:
    if checked["done"]:
        return checked
    try:
        if config.dry_run:
            return _dry_run(context, config, postgres, kintell)
        job = _import(context, config, UUID(checked["job"]), postgres, kintell)
        if job.status == "failed" and config.undo_on_failure:
            from dagster_backfills.defs.kintell.undo import roll_back

            context.log.warning(f"{job.error_message}. Rolling back.")
            roll_back(postgres.libpq_url, job.id, run_id=context.run_id)
    except (UserError, ClaimLost) as error:
        raise refused(error) from error
    return {**checked, "status": job.status}


def _import(
    context: dg.OpExecutionContext,
    config: ImportSessions,
    job: UUID,
    postgres: PostgresResource,
    kintell: KintellSettings,
) -> Job:
    log = _Log(context)
    said = False
    while True:
        try:
            return run_import(
                postgres.libpq_url,
                job,
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
            _pause(context, postgres, job)
            raise


def _pause(context: dg.OpExecutionContext, postgres: PostgresResource, job: UUID) -> None:
    """A run that was terminated leaves its job paused."""
    with postgres.connect() as conn:
        conn.autocommit = True
        try:
            set_status(conn, job, "pause")
            context.log.info(f"Job {job} is paused.")
        except UserError as error:
            context.log.info(str(error))


def _dry_run(
    context: dg.OpExecutionContext,
    config: ImportSessions,
    postgres: PostgresResource,
    kintell: KintellSettings,
) -> Handoff:
    import fsspec

    from dagster_backfills.defs.kintell.dry_run import validate

    url = kintell.error_file(f"dry-run-{context.run_id}")
    with (
        postgres.connect() as conn,
        fsspec.open(url, "w", encoding="utf-8", newline="", auto_mkdir=True) as errors,
    ):
        verdict = validate(
            conn, config.file, kintell.allowed, on_duplicate=config.on_duplicate.value, error_file=errors
        )
    context.add_output_metadata(verdict_metadata(verdict, url))
    context.log.info(
        f"{verdict.new:,} new, {verdict.duplicates:,} duplicates, {verdict.failed:,} would be rejected."
    )
    return {"job": "", "done": True}


class _Log:
    """Progress in the run's log, every other second and at the end."""

    def __init__(self, context: dg.OpExecutionContext) -> None:
        self.context, self.next = context, 0.0

    def progress(self, progress: Progress) -> None:
        if time.monotonic() >= self.next or progress.processed == progress.total:
            self.next = time.monotonic() + LOG_SECONDS
            self.context.log.info(str(progress))


@dg.op(name="report", out=HANDOFF, description="Write the error file and report the outcome.")
def report_outcome(
    context: dg.OpExecutionContext, imported: Handoff, postgres: PostgresResource, kintell: KintellSettings
) -> Handoff:
    if imported["done"]:
        return imported
    from dagster_backfills.defs.kintell.error_file import write_error_file

    with postgres.connect() as conn:
        conn.autocommit = True
        job = load_job(conn, imported["job"])
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
    return imported
