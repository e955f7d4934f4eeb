"""Shared by all pages: the request, routes, and paginated lists."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, TypeVar

import psycopg
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import RedirectResponse, Response
from starlette.routing import Route

from dagster_backfills.postgres.statements import Statement
from dagster_backfills.web.auth import require
from dagster_backfills.web.call import Call
from dagster_backfills.web.limits import form_of
from dagster_backfills.web.pages.rendering import html, link

Value = TypeVar("Value")


@dataclass
class Visit(Call):
    """A page request. `fields`: the fields of a submitted form."""

    fields: dict[str, str] = field(default_factory=dict)

    def may(self, scope: str) -> bool:
        """Whether the user may make changes, so that their buttons are shown."""
        return self.who.may(scope, "POST")

    def query(self, name: str) -> str:
        """A query parameter, without NUL characters, which Postgres rejects."""
        return self.request.query_params.get(name, "").replace("\0", "").strip()

    def show(self, template: str, **context: Any) -> Response:
        return html(self.request, template, **context)


@dataclass(frozen=True)
class Listed:
    """One page of a list: its rows, whether it is the first page, and whether there are more."""

    rows: list[dict[str, Any]]
    first: bool
    more: bool

    def last(self, column: str) -> Any:
        """The key after which the next page starts."""
        return self.rows[-1][column] if self.rows else ""


def listed(
    conn: psycopg.Connection[Any], statement: Statement, most: int, after: Any, **binds: Any
) -> Listed:
    """Up to `most` rows of a statement, from the start or after the key `after`."""
    rows = statement.dicts(conn, after=after or None, most=most + 1, **binds)
    return Listed(rows[:most], not after, len(rows) > most)


def readable(read: Callable[[str], Value], text: str) -> Value | None:
    """Parse a value from a URL or a form; None if it is invalid."""
    try:
        return read(text)
    except ValueError:
        return None


def go_to(path: str, **query: Any) -> Response:
    """Redirect after a form, so that reloading does not send it again."""
    return RedirectResponse(link(path, **query), 303)


def page(path: str, answers: Callable[[Visit], Response]) -> Route:
    """The route of a page. The handler runs in a thread, so it may block on the database."""

    async def endpoint(request: Request) -> Response:
        return await run_in_threadpool(answers, Visit(request))

    return Route(path, endpoint, methods=["GET"])


def act(path: str, scope: str, answers: Callable[[Visit], Response]) -> Route:
    """The route of a form. Needs the right to change things in this scope."""

    async def endpoint(request: Request) -> Response:
        require(request, scope)
        async with form_of(request) as (_, fields):
            return await run_in_threadpool(answers, Visit(request, fields))

    return Route(path, endpoint, methods=["POST"])
