"""Who asks: the system's user at this machine, or the one that the proxy names and only the proxy can name.

Not here: what each may do (`roles`), and how a request comes in.
"""

import hmac
import os
import pwd
import socket
from collections.abc import Mapping
from dataclasses import dataclass
from urllib.parse import urlsplit

from dagster_backfills.errors import UserError

USER_HEADER = "x-forwarded-user"
GROUPS_HEADER = "x-forwarded-groups"  # separated by commas
SECRET_HEADER = "x-proxy-secret"
SECRET_VARIABLE = "BACKFILLS_PROXY_SECRET"

USER_TAG = "dagster/user"
_SHOWN_TAG = "user"  # what the UI shows as the one who launched a run

_LOOPBACK = ("127.0.0.1", "::1")
LOCAL_NAMES = (*_LOOPBACK, "localhost")
_FORWARDED = ("forwarded", "x-forwarded-for", USER_HEADER, "x-real-ip")


class ForgedError(UserError):
    """A request whose sender is not who it says, or nobody at all."""


@dataclass(frozen=True)
class Identity:
    """A person or program, with the groups that the proxy says it is in."""

    user: str
    groups: tuple[str, ...] = ()


def system_user() -> str:
    """Who is at this machine: `alice@host`. Taken from the system, not from variables that anybody can set."""
    try:
        name = pwd.getpwuid(os.getuid()).pw_name
    except KeyError:  # a container's user that has no name
        name = str(os.getuid())
    return f"{name}@{socket.gethostname()}"


def user_tags(user: str) -> dict[str, str]:
    """The tags of a run or backfill that this user launched."""
    return {USER_TAG: user, _SHOWN_TAG: user}


def identify(headers: Mapping[str, str], secret: str, client: str | None) -> Identity:
    """Who sends a request with these headers, from the address `client`.

    Raises ForgedError for whoever shows no proxy's secret, where there is one. Without one only this machine
    itself is let in, by no name that a page could have bound to it.
    """
    user, shown = _text(headers.get(USER_HEADER, "")), headers.get(SECRET_HEADER, "")
    if not secret:
        if user or shown:
            raise ForgedError("The request names a user, and no proxy is known.", f"Set {SECRET_VARIABLE}.")
        if not is_local(headers, client):
            raise ForgedError(
                "Without a proxy only this machine is let in, by the name localhost.",
                f"For others, put the proxy in front and set {SECRET_VARIABLE}.",
            )
        return Identity(system_user())
    if not hmac.compare_digest(shown.encode(), secret.encode()):
        raise ForgedError("The request does not come from the proxy.", "Ask at the proxy's address.")
    if not user:
        raise ForgedError("The proxy names no user.", f"Have it set the header {USER_HEADER}.")
    groups = (group.strip() for group in _text(headers.get(GROUPS_HEADER, "")).split(","))
    return Identity(user, tuple(group for group in groups if group))


def _text(value: str) -> str:
    """A header's text, which comes as Latin-1 whatever it is."""
    return value.encode("latin-1", "replace").decode("utf-8", "replace").strip()


def is_local(headers: Mapping[str, str], client: str | None) -> bool:
    """Whether a request comes from this machine itself: by no proxy, and by no name that a page could bind to it."""
    named = urlsplit(f"//{headers.get('host', '')}").hostname in LOCAL_NAMES
    return client in _LOOPBACK and named and not any(name in headers for name in _FORWARDED)
