"""Error responses: status code, message, hint and request ID. JSON for the API, HTML for pages."""

import logging
import traceback
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import psycopg
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response

from dagster_backfills.domains.kintell.file.dialect import UnpacksTooFar
from dagster_backfills.domains.kintell.file.files import FileError
from dagster_backfills.domains.kintell.importing.claims import JobBusy, TooManyImports
from dagster_backfills.domains.queue.errors import InvalidJobInput, UnknownJobType
from dagster_backfills.errors import NotUsableError, UserError
from dagster_backfills.postgres.explained import chain, explain_database, is_of_database
from dagster_backfills.postgres.values import plain
from dagster_backfills.redact import redact
from dagster_backfills.web.pages.rendering import html

LOG = logging.getLogger("dagster_backfills.web")
_FOR_PROGRAMS = ("/api/", "/import/", "/health", "/openapi.json")
_MISTAKE = 400
_CODES: tuple[tuple[type[UserError], int], ...] = (
    (NotUsableError, 503),
    (JobBusy, 409),
    (TooManyImports, 409),
    (UnpacksTooFar, 413),
    (FileError, 422),
    (InvalidJobInput, 422),
    (UnknownJobType, 422),
)


class Refused(UserError):
    """An error that is answered with this status code."""

    def __init__(
        self, status: int, message: str, hint: str = "", headers: Mapping[str, str] | None = None
    ) -> None:
        super().__init__(message, hint)
        self.status, self.headers = status, dict(headers or {})


@contextmanager
def refused_as(status: int) -> Iterator[None]:
    """Answer a UserError raised within the block with this status code, unless it has one of its own."""
    try:
        yield
    except UserError as error:
        if isinstance(error, Refused) or _code(error) != _MISTAKE:
            raise
        raise Refused(status, error.message, error.hint) from error


def not_found(what: str) -> Refused:
    return Refused(404, f"There is no {what}.")


def answer(data: Any, status: int = 200, headers: Mapping[str, str] | None = None) -> JSONResponse:
    """A JSON response. Times are ISO 8601, IDs are strings."""
    return JSONResponse(plain(data), status, {"Cache-Control": "no-store", **(headers or {})})


def is_for_programs(request: Request) -> bool:
    """Whether this is a request to the API, not to a page."""
    return request.url.path.startswith(_FOR_PROGRAMS)


def refusal(request: Request, error: BaseException) -> Response:
    """The response to a request that raised `error`."""
    status, message, hint, headers = explained(error)
    if status == 500:
        LOG.error("%s", redact("".join(traceback.format_exception(error))))
    body = {"error": redact(message), "hint": redact(hint), "requestId": request.state.request_id}
    if is_for_programs(request):
        return answer(body, status, headers)
    if isinstance(error, HTTPException):  # its hint is about the API
        body["hint"] = ""
    return html(request, "error.html", status, headers, **body)


def explained(error: BaseException) -> tuple[int, str, str, Mapping[str, str]]:
    """The status code, message, hint and headers for an exception."""
    if isinstance(error, HTTPException):
        return error.status_code, f"{error.detail.rstrip('.')}.", "See /openapi.json.", error.headers or {}
    if isinstance(error, ClientDisconnect):
        return 400, "The connection closed before the whole request was received.", "Send it again.", {}
    for cause in chain(error):
        if isinstance(cause, Refused):
            return cause.status, cause.message, cause.hint, cause.headers
        if isinstance(cause, UserError):
            return _code(cause), cause.message, cause.hint, {}
        if is_of_database(cause):
            message, hint = explain_database(cause)
            return (400 if isinstance(cause, psycopg.DataError) else 503), message, hint, {}
    return (
        500,
        "An unexpected error occurred.",
        "The traceback is in the server's log, under this request ID.",
        {},
    )


def _code(error: UserError) -> int:
    return next((code for kind, code in _CODES if isinstance(error, kind)), _MISTAKE)


async def refuse(request: Request, error: Exception) -> Response:
    """`refusal` with the signature that Starlette needs."""
    return refusal(request, error)
