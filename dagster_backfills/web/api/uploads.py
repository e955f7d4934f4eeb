"""`/import/backfill/uploads/…`: a large file in pieces, each of which says where it goes."""

import asyncio
import re
from typing import Any, BinaryIO

from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from dagster_backfills.web.api.calls import Body, Call, call
from dagster_backfills.web.auth import require
from dagster_backfills.web.refusals import Refused, answer
from dagster_backfills.web.uploads import Upload, Uploads

_RANGE = re.compile(r"bytes (\d{1,15})-(\d{1,15})/(\d{1,15})")


class Begin(Body):
    file_name: str
    size: int


def begin(call: Call) -> Any:
    """Expect a file."""
    wanted = call.read(Begin)
    upload = call.actions.uploads.begin(wanted.file_name, wanted.size, call.who.key)
    place = f"/import/backfill/uploads/{upload.id}"
    return answer(shown(upload, 0), 201, {"Location": place, "Upload-Offset": "0"})


def shown(upload: Upload, offset: int) -> dict[str, Any]:
    return {"uploadId": upload.id, "fileName": upload.file_name, "size": upload.size, "offset": offset}


async def piece(request: Request) -> Response:
    """Where it stands (HEAD), one more piece (PUT), or never mind (DELETE)."""
    who = require(request, "imports")
    uploads: Uploads = request.app.state.actions.uploads
    upload = await run_in_threadpool(uploads.find, request.path_params["upload"], who.key)
    if request.method == "DELETE":
        uploads.remove(upload)
        return Response(status_code=204)
    if request.method == "PUT":
        await _append(request, uploads, upload)
    offset = uploads.offset(upload)
    headers = {
        "Upload-Offset": str(offset), "Upload-Length": str(upload.size), "Cache-Control": "no-store",
    }  # fmt: skip
    if request.method == "HEAD":
        return Response(headers=headers)
    return answer(shown(upload, offset), 200, headers)


async def _append(request: Request, uploads: Uploads, upload: Upload) -> None:
    """Write what comes to its place. What came before a cut is kept."""
    first, last = _range(request, upload)
    with uploads.appending(upload, first) as file:
        left = last - first + 1
        async for chunk in request.stream():
            if len(chunk) > left:
                raise Refused(400, "The piece is longer than its Content-Range says.", "Ask where it stands.")
            left -= len(chunk)
            await asyncio.to_thread(_write, file, chunk)
    if left:
        raise Refused(400, f"The piece lacks {left:,} bytes.", "Ask where it stands, and go on from there.")


def _write(file: BinaryIO, chunk: bytes) -> None:
    file.write(chunk)
    file.flush()  # what has come stays, and is told to whoever asks


def _range(request: Request, upload: Upload) -> tuple[int, int]:
    """The first byte and the last of a piece; the whole file without a `Content-Range`."""
    given = request.headers.get("content-range")
    if given is None:
        return 0, upload.size - 1
    found = _RANGE.fullmatch(given.strip())
    first, last, size = (int(each) for each in found.groups()) if found else (0, -1, -1)
    if size != upload.size or not first <= last < size:
        raise Refused(416, "This is no part of the upload.", f"Content-Range: bytes FIRST-LAST/{upload.size}")
    return first, last


routes = [
    call("/import/backfill/uploads", "imports", begin, "POST"),
    Route("/import/backfill/uploads/{upload}", piece, methods=["GET", "PUT", "DELETE"]),
]
