"""`/import/backfill/…`: a file is sent, its import watched, stopped, gone on with and rolled back."""

from dataclasses import asdict
from pathlib import Path
from typing import Any

from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from dagster_backfills.domains.kintell.importing.account import ImportJob, list_jobs
from dagster_backfills.web.actions import Actions
from dagster_backfills.web.api.calls import Body, Call, call, parsed
from dagster_backfills.web.auth import Identity, require
from dagster_backfills.web.limits import json_body
from dagster_backfills.web.multipart import receive_form
from dagster_backfills.web.refusals import Refused, answer
from dagster_backfills.web.rejected_rows import CSV, FORMATS, rejected_rows
from dagster_backfills.web.uploads import Upload


class Options(Body):
    """How to import. Fields of a form are texts, and read as what they mean."""

    on_duplicate: str | None = None
    create_missing_users: bool | None = None
    max_errors: int | None = None
    max_error_ratio: float | None = None
    batch_rows: int | None = None
    rollback_on_failure: bool | None = None
    upload_id: str | None = None

    def of_import(self) -> dict[str, Any]:
        return self.model_dump(exclude={"upload_id"}, exclude_none=True)


class Replay(Body):
    create_missing_users: bool = False


class Rollback(Body):
    dry_run: bool = True


class Newest(Body):
    limit: int = 20


def shown(job: ImportJob) -> dict[str, Any]:
    """A job in the words of the applications."""
    done = 100.0 if job.status == "completed" else 0.0
    percent = round(100 * job.processed_rows / job.total_rows, 1) if job.total_rows else done
    return {
        "jobId": job.id,
        "fileName": job.file_name,
        "totalRows": job.total_rows,
        "processedRows": job.processed_rows,
        "successfulRows": job.inserted_rows + job.updated_rows + job.skipped_rows,
        "failedRows": job.failed_rows,
        "status": job.status,
        "percentComplete": percent,
        "message": _message(job),
        "errorFilePath": f"/import/backfill/{job.id}/errors" if job.failed_rows else None,
        "insertedRows": job.inserted_rows,
        "updatedRows": job.updated_rows,
        "skippedRows": job.skipped_rows,
        "missingUsers": job.missing_users,
        "runId": job.run_id,
        "startedAt": job.started_at,
        "completedAt": job.completed_at,
    }


def _message(job: ImportJob) -> str:
    if job.error_message:
        return job.error_message
    said = {
        "pending": "It waits for its run to start.",
        "running": f"{job.progress} so far.",
        "paused": f"Stopped at {job.progress}; it can be resumed.",
        "cancelled": f"Cancelled at {job.progress}.",
        "rolled_back": f"{job.removed_rows:,} sessions removed, {job.restored_rows:,} restored, "
        f"{job.kept_rows:,} kept.",
    }
    rejected = f", {job.failed_rows:,} rejected" if job.failed_rows else ""
    return said.get(job.status, f"{job.processed_rows:,} rows processed{rejected}.")


async def start(request: Request) -> Response:
    """Import a file: of a form, or one that came in pieces."""
    who, actions = require(request, "imports"), _actions(request)
    path, name, options, upload = await _file(request, who, actions)
    try:
        if path is None:
            raise Refused(400, "No file was sent.", "curl -F file=@sessions.csv …, or give uploadId.")
        done = await run_in_threadpool(actions.imports.start, path, name, who.name, **options)
    finally:
        _clean(actions, path, upload)
    preflight = done.preflight
    more = {
        "runId": done.run_id,
        "existing": done.existing,
        "missingUsers": preflight.missing_count,
        "sampleErrors": [{"row": row, "message": message} for row, message in preflight.sample_errors[:20]],
    }
    return answer({**shown(done.job), **more}, 202)


async def resume(request: Request) -> Response:
    """Go on with a job, with its file or without."""
    who, actions = require(request, "imports"), _actions(request)
    path, name, options, upload = await _file(request, who, actions)
    try:
        job, run = await run_in_threadpool(
            actions.imports.resume, request.path_params["job"], who.name, path, name, **options
        )
    finally:
        _clean(actions, path, upload)
    if upload:
        actions.uploads.remove(upload)
    return answer({**shown(job), "runId": run}, 202)


def _clean(actions: Actions, path: Path | None, upload: Upload | None) -> None:
    """What came with this request is gone with it. What came in pieces stays as long as it was not taken."""
    if path is None:
        return
    if upload is None:
        path.unlink(missing_ok=True)
    elif not path.exists():
        actions.uploads.remove(upload)


async def _file(
    request: Request, who: Identity, actions: Actions
) -> tuple[Path | None, str, dict[str, Any], Upload | None]:
    """The file of a request, its name, the options with it, and the upload that it is of."""
    if request.headers.get("content-type", "").startswith("multipart/"):
        form = await receive_form(request, actions.uploads)
        try:
            options = parsed(Options, {name: text for name, text in form.fields.items() if text})
            if form.path is not None and options.upload_id:
                raise Refused(400, "A file and uploadId exclude each other.", "Send one of them.")
        except BaseException:
            if form.path is not None:
                form.path.unlink(missing_ok=True)
            raise
        path, name = form.path, form.file_name
    else:
        options, path, name = parsed(Options, await json_body(request)), None, ""
    upload = None
    if options.upload_id:
        upload = actions.uploads.find(options.upload_id, who.key)
        path, name = actions.uploads.complete(upload), upload.file_name
    return path, name, options.of_import(), upload


def status(call: Call) -> Any:
    with call.database() as conn:
        return shown(call.actions.imports.find(conn, call.path("job")))


def newest(call: Call) -> Any:
    with call.database() as conn:
        return {"jobs": [shown(job) for job in list_jobs(conn, min(call.query(Newest).limit, 1000))]}


def errors(call: Call) -> Response:
    """The rejected rows, in the form that `Accept` asks for."""
    with call.database() as conn:
        job = call.actions.imports.find(conn, call.path("job"))
    asked = [part.split(";")[0].strip() for part in call.request.headers.get("accept", "*/*").split(",")]
    kind = next((k for k in FORMATS if k in asked), None)
    if kind is None and not {"*/*", "text/*", ""} & {*asked}:
        raise Refused(406, "Errors can't be had in this form.", f"There is {', '.join(FORMATS)}.")
    return rejected_rows(call.database, job, kind or CSV)


def pause(call: Call) -> Any:
    return shown(call.actions.imports.pause(call.path("job")))


def cancel(call: Call) -> Any:
    return shown(call.actions.imports.cancel(call.path("job")))


def replay(call: Call) -> Any:
    wanted = call.read(Replay)
    job, run = call.actions.imports.replay(
        call.path("job"), call.by, create_missing_users=wanted.create_missing_users
    )
    return {**shown(job), "runId": run}


def rollback(call: Call) -> Any:
    if call.read(Rollback).dry_run:
        job, preview = call.actions.imports.preview_rollback(call.path("job"))
        return answer({**shown(job), **asdict(preview), "dryRun": True})
    job, run = call.actions.imports.rollback(call.path("job"), call.by)
    return {**shown(job), "runId": run, "dryRun": False}


def _actions(request: Request) -> Actions:
    found: Actions = request.app.state.actions
    return found


_JOB = "/import/backfill/{job}"
routes = [
    Route("/import/backfill/start", start, methods=["POST"]),
    call("/import/backfill", "imports", newest),
    call(f"{_JOB}/status", "imports", status),
    call(f"{_JOB}/errors", "imports", errors),
    Route(f"{_JOB}/resume", resume, methods=["POST"]),
    call(f"{_JOB}/pause", "imports", pause, "POST"),
    call(f"{_JOB}/cancel", "imports", cancel, "POST"),
    call(f"{_JOB}/replay", "imports", replay, "POST", status=202),
    call(f"{_JOB}/rollback", "imports", rollback, "POST", status=202),
]
