"""Authentication: the operating system's user on this machine, or the user that a trusted proxy names in a header.

Not here: authorization (`roles`).
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
_SHOWN_TAG = "user"  # the UI shows this tag as the user who launched the run

_LOOPBACK = ("127.0.0.1", "::1")
LOCAL_NAMES = (*_LOOPBACK, "localhost")
_FORWARDED = ("forwarded", "x-forwarded-for", USER_HEADER, "x-real-ip")


class ForgedError(UserError):
    """The sender of a request could not be authenticated."""


@dataclass(frozen=True)
class Identity:
    """An authenticated user or program, with its groups as the proxy sent them."""

    user: str
    groups: tuple[str, ...] = ()


def system_user() -> str:
    """The operating system's user, as `alice@host`. Environment variables are not trusted: anyone can set them."""
    try:
        name = pwd.getpwuid(os.getuid()).pw_name
    except KeyError:  # a container's user may have no name
        name = str(os.getuid())
    return f"{name}@{socket.gethostname()}"


def user_tags(user: str) -> dict[str, str]:
    """The tags for runs and backfills that this user launches."""
    return {USER_TAG: user, _SHOWN_TAG: user}


def identify(headers: Mapping[str, str], secret: str, client: str | None) -> Identity:
    """The sender of a request with these headers from the address `client`.

    With a `secret`, raises ForgedError unless the proxy's header matches it. Without one, accepts only requests from
    this machine to a local host name, which no web page can forge by rebinding its own name (DNS rebinding).
    """
    user, presented = _text(headers.get(USER_HEADER, "")), headers.get(SECRET_HEADER, "")
    if not secret:
        if user or presented:
            raise ForgedError("The request names a user, but no proxy is set up.", f"Set {SECRET_VARIABLE}.")
        if not is_local(headers, client):
            raise ForgedError(
                "Without a proxy, only this machine may connect, through the name localhost.",
                f"To admit others, run a proxy in front of it and set {SECRET_VARIABLE}.",
            )
        return Identity(system_user())
    if not hmac.compare_digest(presented.encode(), secret.encode()):
        raise ForgedError("The request did not come through the proxy.", "Use the proxy's address.")
    if not user:
        raise ForgedError("The proxy sent no user name.", f"Let the proxy set the header {USER_HEADER}.")
    groups = (group.strip() for group in _text(headers.get(GROUPS_HEADER, "")).split(","))
    return Identity(user, tuple(group for group in groups if group))


def _text(value: str) -> str:
    """A header's value as UTF-8. Servers decode header bytes as Latin-1."""
    return value.encode("latin-1", "replace").decode("utf-8", "replace").strip()


def is_local(headers: Mapping[str, str], client: str | None) -> bool:
    """Whether a request comes from this machine to a local host name, without a proxy."""
    local_host = urlsplit(f"//{headers.get('host', '')}").hostname in LOCAL_NAMES
    return client in _LOOPBACK and local_host and not any(name in headers for name in _FORWARDED)
