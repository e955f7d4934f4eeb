"""`/import/backfill/uploads/…`: resumable uploads of large files in pieces with a Content-Range."""

import asyncio
import re
from typing import Any, BinaryIO

from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import Response

from dagster_backfills.web.api.calls import Answer, Body, Operation
from dagster_backfills.web.call import Call
from dagster_backfills.web.refusals import Refused, answer
from dagster_backfills.web.uploads import Upload, Uploads

_RANGE = re.compile(r"bytes (\d{1,15})-(\d{1,15})/(\d{1,15})")


class Begin(Body):
    file_name: str
    size: int


class UploadStatus(Answer):
    upload_id: str
    file_name: str
    size: int
    offset: int


def begin(call: Call, body: Begin) -> Any:
    """Begin an upload in pieces."""
    upload = call.actions.uploads.begin(body.file_name, body.size, call.who.key)
    place = f"/import/backfill/uploads/{upload.id}"
    return answer(shown(upload, 0), 201, {"Location": place, "Upload-Offset": "0"})


def shown(upload: Upload, offset: int) -> dict[str, Any]:
    return {"uploadId": upload.id, "fileName": upload.file_name, "size": upload.size, "offset": offset}


def status(call: Call) -> Any:
    """Show how many bytes have been received. HEAD returns only the headers Upload-Offset and Upload-Length."""
    return _status_of(call, _find(call))


async def append(call: Call) -> Any:
    """Send the next piece, with a Content-Range. Without one, the body is the whole file."""
    upload = await run_in_threadpool(_find, call)
    await _append(call.request, call.actions.uploads, upload)
    return _status_of(call, upload)


def forget(call: Call) -> Any:
    """Delete an upload."""
    call.actions.uploads.remove(_find(call))
    return Response(status_code=204)


def _find(call: Call) -> Upload:
    return call.actions.uploads.find(call.path("upload"), call.who.key)


def _status_of(call: Call, upload: Upload) -> Response:
    offset = call.actions.uploads.offset(upload)
    headers = {"Upload-Offset": str(offset), "Upload-Length": str(upload.size)}
    return answer(shown(upload, offset), 200, headers)


async def _append(request: Request, uploads: Uploads, upload: Upload) -> None:
    """Append the body to the upload. If the connection breaks, the bytes received so far are kept."""
    first, last = _range(request, upload)
    with uploads.appending(upload, first) as file:
        left = last - first + 1
        async for chunk in request.stream():
            if len(chunk) > left:
                raise Refused(400, "The piece exceeds its Content-Range.", "Check the offset with HEAD.")
            left -= len(chunk)
            await asyncio.to_thread(_write, file, chunk)
    if left:
        raise Refused(400, f"The piece is {left:,} bytes short.", "Continue from the offset: HEAD shows it.")


def _write(file: BinaryIO, chunk: bytes) -> None:
    file.write(chunk)
    file.flush()  # so that the offset includes it even if the connection breaks


def _range(request: Request, upload: Upload) -> tuple[int, int]:
    """The first and last byte of the piece. Without a `Content-Range`: of the whole file."""
    given = request.headers.get("content-range")
    if given is None:
        return 0, upload.size - 1
    match = _RANGE.fullmatch(given.strip())
    first, last, size = (int(each) for each in match.groups()) if match else (0, -1, -1)
    if size != upload.size or not first <= last < size:
        raise Refused(
            416, "The range is not in the upload.", f"Content-Range: bytes FIRST-LAST/{upload.size}"
        )
    return first, last


_UPLOAD = "/import/backfill/uploads/{upload}"
routes = [
    Operation("/import/backfill/uploads", "imports", begin, "POST", gives={201: UploadStatus}),
    Operation(_UPLOAD, "imports", status, "GET", "HEAD", gives={200: UploadStatus}),
    Operation(
        _UPLOAD,
        "imports",
        append,
        "PUT",
        gives={200: UploadStatus},
        takes={"application/octet-stream": None},
    ),
    Operation(_UPLOAD, "imports", forget, "DELETE", gives={204: ()}),
]
