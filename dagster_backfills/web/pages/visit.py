"""What every page shares: a visit, its answer in HTML, and errors that a person can read. Not here: what is shown."""

from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any
from urllib.parse import parse_qs, urlencode

import psycopg
from psycopg.rows import dict_row
from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import HTMLResponse, RedirectResponse, Response
from starlette.routing import Route

from dagster_backfills.domains.kintell.file.files import FileError
from dagster_backfills.errors import NotUsableError, UserError
from dagster_backfills.postgres.statements import Statements
from dagster_backfills.redact import redact
from dagster_backfills.web.actions import Actions
from dagster_backfills.web.auth import Identity
from dagster_backfills.web.database import Database
from dagster_backfills.web.pages.rendering import render

_FORM_BYTES = 16 * 1024
_HEADERS = {
    "Cache-Control": "no-store",
    "Content-Security-Policy": "default-src 'none'; style-src 'self'; script-src 'self'; connect-src 'self';"
    " img-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'",
}
_CODES: tuple[tuple[type[Exception], int], ...] = (
    (NotUsableError, 503), (FileError, 422), (UserError, 400), (psycopg.DataError, 400), (psycopg.Error, 503),
)  # fmt: skip


@dataclass
class Visit:
    """One request of a person's browser. `fields` are those of the form that it sends."""

    request: Request
    fields: dict[str, str] = field(default_factory=dict)

    @property
    def actions(self) -> Actions:
        found: Actions = self.request.app.state.actions
        return found

    @property
    def database(self) -> Database:
        """`with visit.database() as conn:`"""
        found: Database = self.request.app.state.database
        return found

    @property
    def who(self) -> Identity:
        found: Identity = self.request.state.identity
        return found

    def may(self, scope: str) -> bool:
        """Whether buttons that change something are shown."""
        return self.who.may(scope, "POST")

    def path(self, name: str) -> str:
        return str(self.request.path_params[name])

    def query(self, name: str) -> str:
        """A word of the address, without the NULs that no text in Postgres has."""
        return self.request.query_params.get(name, "").replace("\0", "").strip()

    def show(self, template: str, status: int = 200, **context: Any) -> HTMLResponse:
        shared = {
            "user": self.request.state.user, "path": self.request.url.path, "now": datetime.now(UTC),
        }  # fmt: skip
        return HTMLResponse(render(template, **shared, **context), status, _HEADERS)

    def explain(self, error: Exception) -> HTMLResponse:
        """The page for what went wrong: what, and what to do."""
        if isinstance(error, HTTPException):
            status, message, hint = error.status_code, error.detail, ""
        else:
            code = next(code for kind, code in _CODES if isinstance(error, kind))
            status = getattr(error, "status", code)
            message, hint = getattr(error, "message", "") or str(error), getattr(error, "hint", "")
        return self.show("error.html", status, message=redact(message), hint=redact(hint or ""))


def rows(
    conn: psycopg.Connection[Any], statements: Statements, name: str, **binds: Any
) -> list[dict[str, Any]]:
    """What a statement returns, by column."""
    with conn.cursor(row_factory=dict_row) as cursor:
        return cursor.execute(statements[name], binds).fetchall()


def go_to(path: str, **query: str) -> Response:
    """See there; what was sent is not sent again."""
    return RedirectResponse(f"{path}?{urlencode(query)}" if query else path, 303)


def page(path: str, answers: Callable[[Visit], Response], *methods: str) -> Route:
    """A page. `answers` runs in a thread, so it may wait for the database."""

    async def endpoint(request: Request) -> Response:
        visit = Visit(request)
        try:
            if request.method == "POST":
                visit.fields = await _fields(request)
            return await run_in_threadpool(answers, visit)
        except (UserError, psycopg.Error, HTTPException) as error:
            return await run_in_threadpool(visit.explain, error)

    return Route(path, endpoint, methods=list(methods) or ["GET"])


def act(path: str, scope: str, answers: Callable[[Visit], Response]) -> Route:
    """What a page's form asks for, of whoever may change things of this scope."""

    def admitted(visit: Visit) -> Response:
        if not visit.may(scope):
            raise HTTPException(403, f"{visit.who.name} may look, and change nothing.")
        return answers(visit)

    return page(path, admitted, "POST")


async def _fields(request: Request) -> dict[str, str]:
    """The fields of a form without files, the last of each name."""
    body = b""
    async for chunk in request.stream():
        body += chunk
        if len(body) > _FORM_BYTES:
            raise HTTPException(413, "The form is too long.")
    read = parse_qs(body.decode("utf-8", "replace"))
    return {name: values[-1].strip() for name, values in read.items()}
