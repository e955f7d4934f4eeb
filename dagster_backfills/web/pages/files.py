"""Files on their way in: dropped, checked by a dry run, and then imported or thrown away."""

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

# A small file is checked by then, so that its page comes whole.
_PATIENCE = 3.0


async def receive(request: Request) -> Response:
    """A file of a form. With JavaScript it comes in pieces instead, and this is not asked."""
    require(request, "imports")
    visit = Visit(request)
    async with form_of(request) as (file, _):
        if file is None:
            raise UserError("No file was chosen.", "Choose one, and send the form again.")
        upload = await run_in_threadpool(visit.actions.uploads.keep, file, visit.who.key)
    return go_to(f"/imports/files/{upload.id}")


def checked(visit: Visit) -> Response:
    """What an import of the file would do. Nothing is written."""
    upload, path = _find(visit)
    check = CHECKS.of(upload.id, upload.size, visit.database, path)
    check.ended.wait(_PATIENCE)
    if check.error is not None:
        raise _named(check.error, path, upload.file_name)
    return visit.show("file.html", upload=upload, check=check, verdict=check.verdict)


def _find(visit: Visit) -> tuple[Upload, Path]:
    uploads = visit.actions.uploads
    upload: Upload = uploads.find(visit.path("upload"), visit.who.key)
    return upload, uploads.complete(upload)


def _named(error: Exception, path: Path, name: str) -> Exception:
    """An error in the file's own name, whatever it is called while it waits here."""
    if not isinstance(error, FileError):
        return error
    said = [text.replace(str(path), name).replace(path.name, name) for text in (error.message, error.hint)]
    return FileError(*said)


def start(visit: Visit) -> Response:
    """Import it."""
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
    """Throw it away."""
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
