"""Dagster's webserver with a door: it knows who asks, lets through what that one may do, and notes it.

Not here: what a mutation needs (`mutations`), what it is about (`targets`), who may (`roles`).
"""

import os
from collections.abc import Awaitable, Callable
from contextvars import ContextVar
from dataclasses import dataclass, field, replace
from functools import partial
from inspect import isawaitable
from typing import Any

import dagster as dg
from dagster_graphql.schema.errors import GrapheneError, GrapheneUnauthorizedError
from dagster_webserver.webserver import DagsterWebserver
from graphql import GraphQLError, get_named_type
from starlette.middleware import Middleware
from starlette.requests import HTTPConnection, Request
from starlette.responses import JSONResponse, Response
from starlette.types import ASGIApp, Receive, Scope, Send

from dagster_backfills.engine import audit
from dagster_backfills.identity import SECRET_VARIABLE, ForgedError, Identity, identify, user_tags
from dagster_backfills.instance.door.mutations import RIGHTS
from dagster_backfills.instance.door.targets import Target, Targets
from dagster_backfills.postgres.connection import connect
from dagster_backfills.postgres.embedded import resolve_database_url
from dagster_backfills.roles import ROLES_VARIABLE, Right, read_roles

_IDENTITY = "backfills.identity"
_FOR_PROBES = "/server_info"  # versions, and nothing else


@dataclass
class _Launch:
    """What is launched for whom while a mutation runs: its runs and backfills carry the user's tags."""

    user: str
    ids: list[str] = field(default_factory=list)


_LAUNCH: ContextVar[_Launch | None] = ContextVar("launch", default=None)


class Door(DagsterWebserver[Any, Any]):
    """The webserver, every one of whose mutations is asked about first."""

    def __init__(self, process_context: Any, *arguments: Any, **named: Any) -> None:
        super().__init__(process_context, *arguments, **named)
        _stamp_launches(process_context.instance)

    def build_middleware(self) -> list[Middleware]:
        return [Middleware(_Identified, prefix=self._app_path_prefix), *super().build_middleware()]

    def build_graphql_schema(self) -> Any:
        # The resolver is where GraphQL has read everything: aliases, fragments, variables, operations by name.
        schema = super().build_graphql_schema()
        for name, mutation in schema.graphql_schema.mutation_type.fields.items():
            if RIGHTS.get(name) is not Right.look:
                mutation.resolve = _guarded(name, mutation.resolve)
        return schema

    async def report_asset_materialization_endpoint(self, request: Request) -> Any:
        return await _reported(request, super().report_asset_materialization_endpoint)

    async def report_asset_check_endpoint(self, request: Request) -> Any:
        return await _reported(request, super().report_asset_check_endpoint)

    async def report_asset_observation_endpoint(self, request: Request) -> Any:
        return await _reported(request, super().report_asset_observation_endpoint)


def _stamp_launches(instance: dg.DagsterInstance) -> None:
    """From now on each run and backfill that a mutation stores in this process carries the user's tags."""
    storage = instance.run_storage
    add_run, add_backfill = storage.add_run, storage.add_backfill

    def stamped_run(run: dg.DagsterRun) -> dg.DagsterRun:
        if launch := _LAUNCH.get():
            launch.ids.append(run.run_id)
            run = run.with_tags({**run.tags, **user_tags(launch.user)})
        return add_run(run)

    def stamped_backfill(backfill: Any) -> None:
        if launch := _LAUNCH.get():
            launch.ids.append(backfill.backfill_id)
            backfill = backfill._replace(tags={**(backfill.tags or {}), **user_tags(launch.user)})
        add_backfill(backfill)

    storage.__dict__.update(add_run=stamped_run, add_backfill=stamped_backfill)


class _Identified:
    """Finds out who asks, and refuses whoever is not who he says."""

    def __init__(self, app: ASGIApp, prefix: str) -> None:
        self.app, self.open = app, f"{prefix}{_FOR_PROBES}"

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] in ("http", "websocket") and scope["path"] != self.open:
            asking = HTTPConnection(scope)
            client = asking.client.host if asking.client else None
            try:
                secret = os.environ.get(SECRET_VARIABLE, "")
                scope[_IDENTITY] = identify(asking.headers, secret, client)
            except ForgedError as error:
                if scope["type"] == "websocket":  # closed before it is accepted: 403
                    await send({"type": "websocket.close", "code": 1008})
                else:
                    await JSONResponse({"error": str(error)}, status_code=403)(scope, receive, send)
                return
        await self.app(scope, receive, send)


def _guarded(name: str, resolve: Callable[..., Any]) -> Callable[..., Awaitable[Any]]:
    async def guarded(root: Any, info: Any, **arguments: Any) -> Any:
        request: Request = info.context.source
        target = Targets(info.context).of(arguments)
        asked = _Asked(request.scope[_IDENTITY], name, target, RIGHTS.get(name))
        refusal = _of_another_site(request) or asked.refusal()
        if refusal:
            asked.note("refused", refusal)
            types = [of.name for of in getattr(get_named_type(info.return_type), "types", ())]
            if "UnauthorizedError" in types:
                return GrapheneUnauthorizedError(refusal)
            raise GraphQLError(refusal)
        return await asked.answered(partial(resolve, root, info, **arguments))

    return guarded


async def _reported(request: Request, endpoint: Callable[[Request], Awaitable[Response]]) -> Response:
    """What a program reports of an asset, which the body may name: it needs the right in all domains."""
    target = Target(request.url.path, None)
    asked = _Asked(
        request.scope[_IDENTITY], endpoint.__name__.removesuffix("_endpoint"), target, Right.launch
    )
    refusal = _of_another_site(request) or asked.refusal()
    if refusal:
        asked.note("refused", refusal)
        return JSONResponse({"error": refusal}, status_code=403)
    response: Response = await asked.answered(partial(endpoint, request))
    return response


def _of_another_site(request: Request) -> str:
    """Browsers ask by themselves what any page tells them to, in links and forms. None of those sends JSON."""
    kind = request.headers.get("content-type", "").split(";")[0].strip().lower()
    if request.method == "POST" and kind == "application/json":
        return ""
    return "What changes something is asked for by POST, as application/json."


@dataclass
class _Asked:
    """A request that would change something, its verdict, and the record of both."""

    who: Identity
    action: str
    target: Target
    right: Right | None

    def __post_init__(self) -> None:
        self.entry = audit.Entry(
            self.who.user, self.action, self.target.words, self.target.domains, "started"
        )

    def refusal(self) -> str:
        """Why it is refused; empty where it is not."""
        if self.right is None:
            return f"{self.action} is not known to this door, and nobody may ask for it."
        needed, domains = max(self.right, self.target.right), self.target.domains
        if read_roles(os.environ.get(ROLES_VARIABLE, "")).may(self.who, needed, domains):
            return ""
        where = ", ".join(sorted(domains)) if domains else "all domains"
        return f"{self.who.user} may not {self.action}: it needs the right {needed.name} in {where}."

    async def answered(self, answer: Callable[[], Any]) -> Any:
        """What is answered. That it starts is noted before anything is done, and then how it ended."""
        self.note("started")
        launch = _Launch(self.who.user)
        token = _LAUNCH.set(launch)
        try:
            given = answer()
            given = await given if isawaitable(given) else given
        except Exception as error:
            self.note("failed", type(error).__name__, launch.ids)
            raise
        finally:
            _LAUNCH.reset(token)
        self.note("failed" if _is_error(given) else "done", _kind(given), launch.ids)
        return given

    def note(self, outcome: str, detail: str = "", runs: list[str] | None = None) -> None:
        with connect(resolve_database_url()) as conn:
            audit.record(conn, replace(self.entry, outcome=outcome, detail=detail, runs=runs or []))
            conn.commit()


def _is_error(answer: Any) -> bool:
    if isinstance(answer, Response):
        return answer.status_code >= 400
    # One kind of answer that is an error has not that interface: a configuration that is none.
    meta = getattr(answer, "_meta", None)
    return GrapheneError in getattr(meta, "interfaces", ()) or _kind(answer).endswith("Invalid")


def _kind(answer: Any) -> str:
    return getattr(getattr(answer, "_meta", None), "name", "")
