"""Uploaded files: checked by a dry run, then imported or discarded."""

from pathlib import Path

from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from dagster_backfills.domains.kintell.file.files import FileError
from dagster_backfills.errors import UserError
from dagster_backfills.web.auth import require
from dagster_backfills.web.limits import form_of
from dagster_backfills.web.pages.checking import CHECKS
from dagster_backfills.web.pages.visit import Visit, act, go_to, page
from dagster_backfills.web.uploads import Upload

# Long enough to check a small file, so that its page is complete at once.
_WAIT_SECONDS = 3.0


async def receive(request: Request) -> Response:
    """Receive a file from a form. With JavaScript it is uploaded in pieces instead."""
    require(request, "imports")
    visit = Visit(request)
    async with form_of(request) as (file, _):
        if file is None:
            raise UserError("No file was chosen.", "Choose a file and send the form again.")
        upload = await run_in_threadpool(visit.actions.uploads.keep, file, visit.who.key)
    return go_to(f"/imports/files/{upload.id}")


def checked(visit: Visit) -> Response:
    """What an import of the file would do. Writes nothing."""
    upload, path = _find(visit)
    check = CHECKS.of(upload.id, upload.size, visit.database, path, visit.actions.imports.read_as)
    check.ended.wait(_WAIT_SECONDS)
    if check.error is not None:
        raise _named(check.error, path, upload.file_name)
    return visit.show("file.html", upload=upload, check=check, verdict=check.verdict)


def _find(visit: Visit) -> tuple[Upload, Path]:
    uploads = visit.actions.uploads
    upload: Upload = uploads.find(visit.path("upload"), visit.who.key)
    return upload, uploads.complete(upload)


def _named(error: Exception, path: Path, name: str) -> Exception:
    """The error with the file's original name instead of its temporary one."""
    if not isinstance(error, FileError):
        return error
    texts = [text.replace(str(path), name).replace(path.name, name) for text in (error.message, error.hint)]
    return type(error)(*texts)


def start(visit: Visit) -> Response:
    """Start the import."""
    upload, path = _find(visit)
    options = {
        "on_duplicate": visit.fields.get("on_duplicate", "skip"),
        "create_missing_users": "create_missing_users" in visit.fields,
    }
    try:
        started = visit.actions.imports.start(path, upload.file_name, visit.who.name, **options)
    finally:
        if not path.exists():
            visit.actions.uploads.remove(upload)
            CHECKS.forget(upload.id)
    return go_to(f"/imports/{started.job.id}", known="1" if started.existing else None)


def discard(visit: Visit) -> Response:
    """Delete the uploaded file."""
    upload: Upload = visit.actions.uploads.find(visit.path("upload"), visit.who.key)
    visit.actions.uploads.remove(upload)
    CHECKS.forget(upload.id)
    return go_to("/imports")


routes = [
    Route("/imports", receive, methods=["POST"]),
    page("/imports/files/{upload}", checked),
    act("/imports/files/{upload}/start", "imports", start),
    act("/imports/files/{upload}/discard", "imports", discard),
]
