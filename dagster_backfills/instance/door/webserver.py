"""Dagster's webserver with authentication, authorization of mutations, and an audit log.

Not here: the right that a mutation needs (`mutations`), its target (`targets`), users' rights (`roles`).
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
from dagster_backfills.instance.roles import ROLES_VARIABLE, Right, read_roles
from dagster_backfills.postgres.connection import connect
from dagster_backfills.postgres.embedded import resolve_database_url

_IDENTITY = "backfills.identity"
_FOR_PROBES = "/server_info"  # open to anyone; returns only versions


@dataclass
class _Launch:
    """The user of a running mutation, and the IDs of the runs and backfills that it launches."""

    user: str
    ids: list[str] = field(default_factory=list)


_LAUNCH: ContextVar[_Launch | None] = ContextVar("launch", default=None)


class Door(DagsterWebserver[Any, Any]):
    """The webserver, which authorizes every mutation."""

    def __init__(self, process_context: Any, *arguments: Any, **named: Any) -> None:
        super().__init__(process_context, *arguments, **named)
        _stamp_launches(process_context.instance)

    def build_middleware(self) -> list[Middleware]:
        return [Middleware(_Identified, prefix=self._app_path_prefix), *super().build_middleware()]

    def build_graphql_schema(self) -> Any:
        # Guard the resolvers: there GraphQL has resolved aliases, fragments, variables and named operations.
        schema = super().build_graphql_schema()
        for name, mutation in schema.graphql_schema.mutation_type.fields.items():
            if RIGHTS.get(name) is not Right.view:
                mutation.resolve = _guarded(name, mutation.resolve)
        return schema

    async def report_asset_materialization_endpoint(self, request: Request) -> Any:
        return await _reported(request, super().report_asset_materialization_endpoint)

    async def report_asset_check_endpoint(self, request: Request) -> Any:
        return await _reported(request, super().report_asset_check_endpoint)

    async def report_asset_observation_endpoint(self, request: Request) -> Any:
        return await _reported(request, super().report_asset_observation_endpoint)


def _stamp_launches(instance: dg.DagsterInstance) -> None:
    """Add the user's tags to each run and backfill that a mutation stores in this process."""
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
    """Middleware that authenticates requests and refuses those that can't be authenticated."""

    def __init__(self, app: ASGIApp, prefix: str) -> None:
        self.app, self.open = app, f"{prefix}{_FOR_PROBES}"

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] in ("http", "websocket") and scope["path"] != self.open:
            connection = HTTPConnection(scope)
            client = connection.client.host if connection.client else None
            try:
                secret = os.environ.get(SECRET_VARIABLE, "")
                scope[_IDENTITY] = identify(connection.headers, secret, client)
            except ForgedError as error:
                if scope["type"] == "websocket":  # closing before accepting gives status 403
                    await send({"type": "websocket.close", "code": 1008})
                else:
                    await JSONResponse({"error": str(error)}, status_code=403)(scope, receive, send)
                return
        await self.app(scope, receive, send)


def _guarded(name: str, resolve: Callable[..., Any]) -> Callable[..., Awaitable[Any]]:
    async def guarded(root: Any, info: Any, **arguments: Any) -> Any:
        request: Request = info.context.source
        target = Targets(info.context).of(arguments)
        change = _Change(request.scope[_IDENTITY], name, target, RIGHTS.get(name))
        refusal = _cross_site_refusal(request) or change.refusal()
        if refusal:
            change.record("refused", refusal)
            types = [of.name for of in getattr(get_named_type(info.return_type), "types", ())]
            if "UnauthorizedError" in types:
                return GrapheneUnauthorizedError(refusal)
            raise GraphQLError(refusal)
        return await change.execute(partial(resolve, root, info, **arguments))

    return guarded


async def _reported(request: Request, endpoint: Callable[[Request], Awaitable[Response]]) -> Response:
    """Handle an external asset report. Its body may name any asset, so it needs the right in all domains."""
    target = Target(request.url.path, None)
    change = _Change(
        request.scope[_IDENTITY], endpoint.__name__.removesuffix("_endpoint"), target, Right.launch
    )
    refusal = _cross_site_refusal(request) or change.refusal()
    if refusal:
        change.record("refused", refusal)
        return JSONResponse({"error": refusal}, status_code=403)
    response: Response = await change.execute(partial(endpoint, request))
    return response


def _cross_site_refusal(request: Request) -> str:
    """Why a request that another site's page may have triggered is refused. Links and forms can't send JSON."""
    kind = request.headers.get("content-type", "").split(";")[0].strip().lower()
    if request.method == "POST" and kind == "application/json":
        return ""
    return "Requests that change something must use POST with the content type application/json."


@dataclass
class _Change:
    """A request that would change something: its authorization, its execution and its audit entries."""

    who: Identity
    action: str
    target: Target
    right: Right | None

    def __post_init__(self) -> None:
        self.entry = audit.Entry(
            self.who.user, self.action, self.target.description, self.target.domains, "started"
        )

    def refusal(self) -> str:
        """The reason for refusing the request; empty if it is allowed."""
        if self.right is None:
            return f"{self.action} is not a known mutation, so nobody may use it."
        needed, domains = max(self.right, self.target.right), self.target.domains
        if read_roles(os.environ.get(ROLES_VARIABLE, "")).may(self.who, needed, domains):
            return ""
        where = ", ".join(sorted(domains)) if domains else "all domains"
        return f"{self.who.user} may not {self.action}: it needs the right {needed.name} in {where}."

    async def execute(self, handler: Callable[[], Any]) -> Any:
        """Execute the request and return its response. Records that it starts before it does, and then its outcome."""
        self.record("started")
        launch = _Launch(self.who.user)
        token = _LAUNCH.set(launch)
        try:
            response = handler()
            response = await response if isawaitable(response) else response
        except Exception as error:
            self.record("failed", type(error).__name__, launch.ids)
            raise
        finally:
            _LAUNCH.reset(token)
        self.record("failed" if _is_error(response) else "done", _kind(response), launch.ids)
        return response

    def record(self, outcome: str, detail: str = "", runs: list[str] | None = None) -> None:
        with connect(resolve_database_url()) as conn:
            audit.record(conn, replace(self.entry, outcome=outcome, detail=detail, runs=runs or []))
            conn.commit()


def _is_error(response: Any) -> bool:
    if isinstance(response, Response):
        return response.status_code >= 400
    # The type for an invalid run configuration does not implement the error interface.
    meta = getattr(response, "_meta", None)
    return GrapheneError in getattr(meta, "interfaces", ()) or _kind(response).endswith("Invalid")


def _kind(response: Any) -> str:
    return getattr(getattr(response, "_meta", None), "name", "")
