"""`/import/backfill/…`: starting, watching, stopping, resuming and rolling back imports."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import asdict
from datetime import datetime
from typing import Any, Literal
from uuid import UUID

from starlette.concurrency import run_in_threadpool
from starlette.responses import Response

from dagster_backfills.domains.kintell.importing.jobs import ImportJob, list_jobs
from dagster_backfills.web.api.calls import JSON, Answer, Body, Operation, Query, parsed
from dagster_backfills.web.call import Call
from dagster_backfills.web.limits import form_of, json_body
from dagster_backfills.web.refusals import Refused, answer
from dagster_backfills.web.rejected_rows import CSV, FORMATS, rejected_rows
from dagster_backfills.web.uploads import Upload


class ImportOptions(Body):
    """Options of an import. In a form all values are strings, which are converted."""

    on_duplicate: str | None = None
    create_missing_users: bool | None = None
    max_errors: int | None = None
    max_error_ratio: float | None = None
    batch_rows: int | None = None
    rollback_on_failure: bool | None = None
    upload_id: str | None = None


class ImportForm(ImportOptions):
    file: bytes


class Replay(Body):
    create_missing_users: bool = False


class Rollback(Body):
    dry_run: bool = True


class Newest(Query):
    limit: int = 20


class Import(Answer):
    """`successful_rows`: inserted, updated or skipped as duplicates. `error_file_path`: a path of this API."""

    job_id: UUID
    file_name: str
    total_rows: int
    processed_rows: int
    successful_rows: int
    failed_rows: int
    status: Literal["pending", "running", "completed", "failed", "paused", "cancelled", "rolled_back"]
    percent_complete: float
    message: str
    error_file_path: str | None
    inserted_rows: int
    updated_rows: int
    skipped_rows: int
    missing_users: int
    run_id: str | None
    started_at: datetime | None
    completed_at: datetime | None


class SampleError(Answer):
    row: int
    message: str


class StartedImport(Import):
    """`existing`: the same content was sent before, and this is its job."""

    existing: bool
    sample_errors: list[SampleError]


class Imports(Answer):
    jobs: list[Import]


class RollbackPlan(Import):
    removes: int
    restores: int
    keeps: int
    kept: list[str]
    dry_run: bool


def shown(job: ImportJob) -> dict[str, Any]:
    """A job as the API returns it."""
    result = Import.model_validate(
        asdict(job)
        | {
            "job_id": job.id,
            "successful_rows": job.inserted_rows + job.updated_rows + job.skipped_rows,
            "percent_complete": round(job.percent, 1),
            "message": _message(job),
            "error_file_path": f"/import/backfill/{job.id}/errors" if job.failed_rows else None,
        }
    )
    return result.model_dump(by_alias=True)


def _message(job: ImportJob) -> str:
    if job.error_message:
        return job.error_message
    messages = {
        "pending": "Waiting for its run to start.",
        "running": f"{job.progress} so far.",
        "paused": f"Paused at {job.progress}; it can be resumed.",
        "cancelled": f"Cancelled at {job.progress}.",
        "rolled_back": f"{job.removed_rows:,} sessions removed, {job.restored_rows:,} restored, "
        f"{job.kept_rows:,} kept.",
    }
    rejected = f", {job.failed_rows:,} rejected" if job.failed_rows else ""
    return messages.get(job.status, f"{job.processed_rows:,} rows processed{rejected}.")


async def start(call: Call) -> Any:
    """Start an import of a file, sent as a form or uploaded in pieces before."""
    imports, uploads = call.actions.imports, call.actions.uploads
    async with _sent(call) as (upload, options):
        if upload is None:
            raise Refused(400, "No file was sent.", "Use curl -F file=@sessions.csv …, or uploadId.")
        path = uploads.complete(upload)
        done = await run_in_threadpool(imports.start, path, upload.file_name, call.who.name, **options)
    preflight = done.preflight
    more = {
        "runId": done.run_id,
        "existing": done.existing,
        "missingUsers": len(preflight.missing),
        "sampleErrors": [{"row": row, "message": message} for row, message in preflight.sample_errors[:20]],
    }
    return {**shown(done.job), **more}


async def resume(call: Call) -> Any:
    """Resume an import, with or without sending its file again. The file's digest must be the same."""
    imports, uploads = call.actions.imports, call.actions.uploads
    async with _sent(call) as (upload, options):
        file = (uploads.complete(upload), upload.file_name) if upload else ()
        job, run = await run_in_threadpool(imports.resume, call.path("job"), call.who.name, *file, **options)
        if upload:
            uploads.remove(upload)
    return {**shown(job), "runId": run}


@asynccontextmanager
async def _sent(call: Call) -> AsyncIterator[tuple[Upload | None, dict[str, Any]]]:
    """The request's file and options.

    A file in the request itself is removed at the end. One uploaded in pieces is removed only if it was used.
    """
    request, uploads, received = call.request, call.actions.uploads, None
    if request.headers.get("content-type", "").startswith("multipart/"):
        async with form_of(request) as (file, fields):
            options = parsed(ImportOptions, fields)
            if file and options.upload_id:
                raise Refused(400, "A file and uploadId can't be used together.", "Send one of them.")
            received = await run_in_threadpool(uploads.keep, file, call.who.key) if file else None
    else:
        options = parsed(ImportOptions, await json_body(request))
    upload = uploads.find(options.upload_id, call.who.key) if options.upload_id else received
    try:
        yield upload, options.model_dump(exclude={"upload_id"}, exclude_none=True)
    finally:
        if upload and (upload is received or not uploads.part(upload).exists()):
            uploads.remove(upload)


def status(call: Call) -> Any:
    """Show an import's progress."""
    with call.database() as conn:
        return shown(call.actions.imports.find(conn, call.path("job")))


def newest(call: Call, query: Newest) -> Any:
    """List the newest imports."""
    with call.database() as conn:
        return {"jobs": [shown(job) for job in list_jobs(conn, min(query.limit, 1000))]}


def errors(call: Call) -> Response:
    """Download the rejected rows with their errors, to be corrected and sent again.

    `Accept` selects CSV or a workbook with marked cells and suggestions.
    """
    with call.database() as conn:
        job = call.actions.imports.find(conn, call.path("job"))
    accepted = [part.split(";")[0].strip() for part in call.request.headers.get("accept", "*/*").split(",")]
    kind = next((k for k in FORMATS if k in accepted), None)
    if kind is None and not {"*/*", "text/*", ""} & {*accepted}:
        raise Refused(406, "Errors are not available in this format.", f"Accept one of {', '.join(FORMATS)}.")
    return rejected_rows(call.database, job, kind or CSV)


def pause(call: Call) -> Any:
    """Pause an import at once. It can be resumed."""
    return shown(call.actions.imports.set_status(call.path("job"), "pause"))


def cancel(call: Call) -> Any:
    """Cancel an import for good. Imported sessions stay."""
    return shown(call.actions.imports.set_status(call.path("job"), "cancel"))


def replay(call: Call, body: Replay) -> Any:
    """Retry an import's rejected rows after their cause was fixed."""
    create = body.create_missing_users
    job, run = call.actions.imports.replay(call.path("job"), call.who.name, create_missing_users=create)
    return {**shown(job), "runId": run}


def rollback(call: Call, body: Rollback) -> Any:
    """Show what rolling back an import would do. With dryRun false, launch the rollback."""
    if body.dry_run:
        job, preview = call.actions.imports.preview_rollback(call.path("job"))
        return answer({**shown(job), **asdict(preview), "dryRun": True})
    job, run = call.actions.imports.rollback(call.path("job"), call.who.name)
    return {**shown(job), "runId": run, "dryRun": False}


_FILE: dict[str, type[Body] | None] = {"multipart/form-data": ImportForm, JSON: ImportOptions}
_JOB = "/import/backfill/{job}"
routes = [
    Operation("/import/backfill/start", "imports", start, "POST", gives={202: StartedImport}, takes=_FILE),
    Operation("/import/backfill", "imports", newest, gives={200: Imports}),
    Operation(f"{_JOB}/status", "imports", status, gives={200: Import}),
    Operation(f"{_JOB}/errors", "imports", errors, gives={200: tuple(FORMATS)}),
    Operation(f"{_JOB}/resume", "imports", resume, "POST", gives={202: Import}, takes=_FILE),
    Operation(f"{_JOB}/pause", "imports", pause, "POST", gives={200: Import}),
    Operation(f"{_JOB}/cancel", "imports", cancel, "POST", gives={200: Import}),
    Operation(f"{_JOB}/replay", "imports", replay, "POST", gives={202: Import}),
    Operation(f"{_JOB}/rollback", "imports", rollback, "POST", gives={202: Import, 200: RollbackPlan}),
]
