"""The middleware of all requests: request ID, authentication, rate and size limits, access log, errors.

Plain ASGI, so that uploads and event streams are not buffered.
"""

import time
from uuid import uuid4

from starlette.datastructures import MutableHeaders
from starlette.requests import Request
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from dagster_backfills.web.auth import NOBODY, identify, refuse_other_sites, refuse_strangers
from dagster_backfills.web.limits import MULTIPART_EXTRA, SMALL_BODY, Buckets, bounded, too_many
from dagster_backfills.web.refusals import LOG, Refused, explained, refusal
from dagster_backfills.web.settings import Settings

_HEADERS = {
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "same-origin",
    "Cache-Control": "no-cache",  # static files: browsers ask with their ETag. All other responses are not stored.
}
_FAILED_LOGINS_PER_SECOND = 0.5  # from one address


class Door:
    """The outermost middleware."""

    def __init__(self, app: ASGIApp, settings: Settings) -> None:
        self.app, self.settings = app, settings
        self.most = settings.limits.upload_bytes + MULTIPART_EXTRA
        self.asked = Buckets(settings.limits.requests_per_second)
        self.refused = Buckets(_FAILED_LOGINS_PER_SECOND)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            if scope["type"] == "lifespan":
                await self.app(scope, receive, send)
            return
        began, status = time.monotonic(), 0
        request = Request(scope)
        request.state.request_id = uuid4().hex
        request.state.identity = NOBODY

        async def sent(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                headers = MutableHeaders(scope=message)
                headers["X-Request-Id"] = request.state.request_id
                for name, value in _HEADERS.items():
                    headers.setdefault(name, value)
            await send(message)

        try:
            self.admit(request)
            most = SMALL_BODY if scope["path"].startswith("/api/") else self.most
            receive = bounded(receive, most, request.headers.get("content-length"))
            await self.app(scope, receive, sent)
        except Exception as error:
            if status:  # the response has started, so it can only be aborted
                LOG.error("%s aborted: %s", request.state.request_id, explained(error)[1])
                raise
            await refusal(request, error)(scope, receive, sent)
        finally:
            LOG.info(
                "%s %s %s %s %d %.0f ms", request.state.request_id, request.state.identity.name or "-",
                scope["method"], scope["path"], status, (time.monotonic() - began) * 1000,
            )  # fmt: skip

    def admit(self, request: Request) -> None:
        """Authenticate the request and apply the rate limits. Raises `Refused`."""
        address = request.client.host if request.client else ""
        try:
            who = identify(request, self.settings)
        except Refused:
            if wait := self.refused.take(address):
                raise too_many(wait) from None
            raise
        request.state.identity = who
        if wait := self.asked.take(who.key if who.name else address):
            raise too_many(wait)
        refuse_other_sites(request, who)
        refuse_strangers(request, who)
