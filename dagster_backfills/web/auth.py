"""Who asks, and whether they may: bearer tokens, the proxy's users, and whoever sits at this machine.

Not here: how often (`limits`), and what each route needs (it says so itself, with `require`).
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
    def mine(self) -> dict[str, str]:
        """The owner whose background jobs alone are there, by column; nothing where all are."""
        given = {"user_id": self.user_id, "company_id": self.company_id}
        return {column: owner for column, owner in given.items() if owner is not None}

    def owns(self, job: Mapping[str, object]) -> bool:
        """Whether a background job is this one's to see and to change."""
        return self.mine.items() <= job.items()


NOBODY = Identity("", frozenset(), "nothing")


def identify(request: Request, settings: Settings) -> Identity:
    """Who asks. Raises `Refused` for a token, or a proxy, that is none."""
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
    found = None
    for token in settings.tokens:  # all are compared, so that the time says nothing
        if hmac.compare_digest(token.token.encode(), given.encode()):
            found = token
    if found is None:
        raise Refused(401, "This token is not known.", "", {"WWW-Authenticate": "Bearer"})
    return Identity(found.name, found.scopes, "token", found.user_id, found.company_id)


def require(request: Request, scope: str, method: str = "") -> None:
    """Let in who may do that, by the request's method or another. Raises `Refused`: 401 for nobody, 403 for others."""
    who: Identity = request.state.identity
    method = method or request.method
    if who is NOBODY:
        raise Refused(401, "A token is missing.", "Authorization: Bearer …", {"WWW-Authenticate": "Bearer"})
    if not who.may(scope, method):
        doing = "read" if method in READING else "change"
        raise Refused(403, f"{who.name} may not {doing} {scope}.", f"It needs the scope {scope}.")


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
    if not is_for_programs(request) and who.by not in ("proxy", "this machine"):
        raise Refused(401, "Pages are for people.", "Ask the proxy's address, with your password.")
    if request.method not in READING and who is not NOBODY and not who.scopes & {*SCOPES}:
        raise Refused(403, f"{who.name} may look, and change nothing.", "Ask an operator.")
