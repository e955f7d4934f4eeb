"""What every page shares: a visit, its answer in HTML, and lists that go on behind their last row."""

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
    """A request of a person's browser. `fields` are those of the form that it sends."""

    fields: dict[str, str] = field(default_factory=dict)

    def may(self, scope: str) -> bool:
        """Whether buttons that change something are shown."""
        return self.who.may(scope, "POST")

    def query(self, name: str) -> str:
        """A word of the address, without the NULs that no text in Postgres has."""
        return self.request.query_params.get(name, "").replace("\0", "").strip()

    def show(self, template: str, **context: Any) -> Response:
        return html(self.request, template, **context)


@dataclass(frozen=True)
class Listed:
    """A page of a list: its rows, whether it is the first, and whether there are more."""

    rows: list[dict[str, Any]]
    first: bool
    more: bool

    def last(self, column: str) -> Any:
        """What the next page goes on behind."""
        return self.rows[-1][column] if self.rows else ""


def listed(
    conn: psycopg.Connection[Any], statement: Statement, most: int, after: Any, **binds: Any
) -> Listed:
    """At most so many of a statement's rows, from the first on or behind `after`."""
    found = statement.dicts(conn, after=after or None, most=most + 1, **binds)
    return Listed(found[:most], not after, len(found) > most)


def readable(read: Callable[[str], Value], text: str) -> Value | None:
    """What stands in an address or a form; None where it can't be read."""
    try:
        return read(text)
    except ValueError:
        return None


def go_to(path: str, **query: Any) -> Response:
    """See there; what was sent is not sent again."""
    return RedirectResponse(link(path, **query), 303)


def page(path: str, answers: Callable[[Visit], Response]) -> Route:
    """A page. `answers` runs in a thread, so it may wait for the database."""

    async def endpoint(request: Request) -> Response:
        return await run_in_threadpool(answers, Visit(request))

    return Route(path, endpoint, methods=["GET"])


def act(path: str, scope: str, answers: Callable[[Visit], Response]) -> Route:
    """What a page's form asks for, of whoever may change things of this scope."""

    async def endpoint(request: Request) -> Response:
        require(request, scope)
        async with form_of(request) as (_, fields):
            return await run_in_threadpool(answers, Visit(request, fields))

    return Route(path, endpoint, methods=["POST"])
