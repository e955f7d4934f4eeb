"""Who asks, and whether they may: bearer tokens, the proxy's users, and whoever sits at this machine.

Not here: how often (`limits`), and what each route needs (it says so itself, with `require`).
"""

import hmac
from dataclasses import dataclass
from urllib.parse import urlsplit

from starlette.requests import Request

from dagster_backfills.identity import SECRET_HEADER, USER_HEADER, is_local
from dagster_backfills.web.refusals import Refused
from dagster_backfills.web.settings import SCOPES, Settings

READING = ("GET", "HEAD", "OPTIONS")
OPEN_PATHS = ("/health", "/openapi.json")
_FOR_PROGRAMS = ("/api/", "/import/")


@dataclass(frozen=True)
class Identity:
    """Who asks. `scopes`: what for. With an owner, only that owner's jobs are there. `by`: how it was shown."""

    name: str
    scopes: frozenset[str]
    by: str
    user_id: str | None = None
    company_id: str | None = None

    def may(self, scope: str, method: str) -> bool:
        return scope in self.scopes or (method in READING and f"{scope}:read" in self.scopes)

    @property
    def key(self) -> str:
        """Tells a token from a person of the same name."""
        return f"{self.by}: {self.name}"

    @property
    def owned(self) -> bool:
        return self.user_id is not None or self.company_id is not None

    def owns(self, job: dict[str, object]) -> bool:
        """Whether a background job is this one's to see and to change."""
        return all(
            mine is None or job.get(name) == mine
            for name, mine in (("user_id", self.user_id), ("company_id", self.company_id))
        )


NOBODY = Identity("", frozenset(), "nothing")


def identify(request: Request, settings: Settings) -> Identity:
    """Who asks. Raises `Refused` for a token, or a proxy, that is none."""
    kind, _, given = request.headers.get("authorization", "").partition(" ")
    if kind.lower() == "bearer":
        return _by_token(given.strip(), settings)
    if settings.proxy_secret:
        return _by_proxy(request, settings.proxy_secret)
    if is_local(request.headers, request.client.host if request.client else None):
        return Identity("local", frozenset(SCOPES), "this machine")
    return NOBODY


def _by_token(given: str, settings: Settings) -> Identity:
    found = None
    for token in settings.tokens:  # all are compared, so that the time says nothing
        if hmac.compare_digest(token.token.encode(), given.encode()):
            found = token
    if found is None:
        raise Refused(401, "This token is not known.", "", {"WWW-Authenticate": "Bearer"})
    return Identity(found.name, found.scopes, "token", found.user_id, found.company_id)


def _by_proxy(request: Request, secret: str) -> Identity:
    shown, user = request.headers.get(SECRET_HEADER, ""), request.headers.get(USER_HEADER, "")
    genuine = hmac.compare_digest(shown.encode(), secret.encode())
    if (shown or user) and not genuine:
        raise Refused(401, "This request does not come from the proxy.", "Ask the proxy's address.")
    if not user:
        return NOBODY
    operates = request.headers.get("x-forwarded-role", "") == "operator"
    scopes = SCOPES if operates else [f"{scope}:read" for scope in SCOPES]
    return Identity(user, frozenset(scopes), "proxy")


def require(request: Request, scope: str) -> Identity:
    """The one who asks, if he may. Raises `Refused`: 401 for nobody, 403 for somebody who may not."""
    who: Identity = request.state.identity
    if who is NOBODY:
        raise Refused(401, "A token is missing.", "Authorization: Bearer …", {"WWW-Authenticate": "Bearer"})
    if not who.may(scope, request.method):
        doing = "read" if request.method in READING else "change"
        raise Refused(403, f"{who.name} may not {doing} {scope}.", f"It needs the scope {scope}.")
    return who


def refuse_other_sites(request: Request, who: Identity) -> None:
    """A browser asks, with a password or from this machine, whatever any page tells it to; but it says whose page."""
    if request.method in READING or who.by == "token":
        return
    site = request.headers.get("sec-fetch-site", "")
    origin = request.headers.get("origin", "")
    same = not origin or urlsplit(origin).netloc == request.headers.get("host", "")
    if site not in ("", "same-origin", "none") or not same:
        raise Refused(403, "Another site asked for this.", "Do it on this site's own page.")


def refuse_strangers(request: Request, who: Identity) -> None:
    """Pages are for people: whoever has a token, or shows nothing, gets none. Who may only look changes nothing.

    Routes for programs say themselves what they need.
    """
    path = request.url.path
    if path in OPEN_PATHS:
        return
    if not path.startswith(_FOR_PROGRAMS) and who.by not in ("proxy", "this machine"):
        raise Refused(401, "Pages are for people.", "Ask the proxy's address, with your password.")
    if request.method not in READING and who is not NOBODY and not who.scopes & {*SCOPES}:
        raise Refused(403, f"{who.name} may look, and change nothing.", "Ask an operator.")
