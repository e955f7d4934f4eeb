"""Authentication and authorization: bearer tokens, users of the proxy, and local users.

Not here: rate limits (`limits`), and the scope of each route, which calls `require`.
"""

import hmac
from collections.abc import Mapping
from dataclasses import dataclass
from urllib.parse import urlsplit

from starlette.requests import Request

from dagster_backfills import identity
from dagster_backfills.web.refusals import Refused, is_for_programs
from dagster_backfills.web.settings import SCOPES, Settings

READING = ("GET", "HEAD", "OPTIONS")


@dataclass(frozen=True)
class Identity:
    """An authenticated caller. `by`: how it was authenticated. With an owner, it sees only that owner's jobs."""

    name: str
    scopes: frozenset[str]
    by: str
    user_id: str | None = None
    company_id: str | None = None

    def may(self, scope: str, method: str) -> bool:
        return scope in self.scopes or (method in READING and f"{scope}:read" in self.scopes)

    @property
    def key(self) -> str:
        """Unique also if a token and a person have the same name."""
        return f"{self.by}: {self.name}"

    @property
    def mine(self) -> dict[str, str]:
        """The owner columns that background jobs must match. Empty: all jobs."""
        given = {"user_id": self.user_id, "company_id": self.company_id}
        return {column: owner for column, owner in given.items() if owner is not None}

    def owns(self, job: Mapping[str, object]) -> bool:
        """Whether the caller may see and change a background job."""
        return self.mine.items() <= job.items()


NOBODY = Identity("", frozenset(), "nothing")


def identify(request: Request, settings: Settings) -> Identity:
    """Authenticate a request. Raises `Refused` for an unknown token or a request that did not come from the proxy."""
    kind, _, given = request.headers.get("authorization", "").partition(" ")
    if kind.lower() == "bearer":
        return _by_token(given.strip(), settings)
    client = request.client.host if request.client else None
    try:
        user = identity.identify(request.headers, settings.proxy_secret, client).user
    except identity.ForgedError as error:
        if settings.proxy_secret and request.headers.get(identity.USER_HEADER):
            raise Refused(401, error.message, error.hint) from None
        return NOBODY
    if not settings.proxy_secret:
        return Identity("local", frozenset(SCOPES), "this machine")
    operates = request.headers.get("x-forwarded-role", "") == "operator"
    scopes = SCOPES if operates else [f"{scope}:read" for scope in SCOPES]
    return Identity(user, frozenset(scopes), "proxy")


def _by_token(given: str, settings: Settings) -> Identity:
    match = None
    for token in settings.tokens:  # compare with all, so that the time reveals nothing
        if hmac.compare_digest(token.token.encode(), given.encode()):
            match = token
    if match is None:
        raise Refused(401, "Unknown token.", "", {"WWW-Authenticate": "Bearer"})
    return Identity(match.name, match.scopes, "token", match.user_id, match.company_id)


def require(request: Request, scope: str, method: str = "") -> None:
    """Require a scope. `method`: instead of the request's own. Raises `Refused`: 401 without identity, else 403."""
    who: Identity = request.state.identity
    method = method or request.method
    if who is NOBODY:
        raise Refused(401, "A token is missing.", "Authorization: Bearer …", {"WWW-Authenticate": "Bearer"})
    if not who.may(scope, method):
        verb = "read" if method in READING else "change"
        raise Refused(403, f"{who.name} may not {verb} {scope}.", f"This needs the scope {scope}.")


def refuse_other_sites(request: Request, who: Identity) -> None:
    """Refuse requests that another site made a user's browser send (CSRF)."""
    if request.method in READING or who.by == "token":
        return
    site = request.headers.get("sec-fetch-site", "")
    origin = request.headers.get("origin", "")
    same = not origin or urlsplit(origin).netloc == request.headers.get("host", "")
    if site not in ("", "same-origin", "none") or not same:
        raise Refused(403, "This request came from another site.", "Use this site's own pages.")


def refuse_strangers(request: Request, who: Identity) -> None:
    """Refuse pages to tokens and unauthenticated requests, and changes to callers who may only read.

    Routes of the API check their own scope.
    """
    if not is_for_programs(request) and who.by not in ("proxy", "this machine"):
        raise Refused(401, "Pages need a signed-in user.", "Open the proxy's address and sign in.")
    if request.method not in READING and who is not NOBODY and not who.scopes & {*SCOPES}:
        raise Refused(403, f"{who.name} may only read.", "Ask an operator to make changes.")
