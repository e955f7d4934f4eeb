"""Settings of the HTTP service from environment variables, read once at start. Not here: settings of the domains."""

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError

from dagster_backfills.environment import from_environment
from dagster_backfills.errors import UserError
from dagster_backfills.identity import SECRET_VARIABLE
from dagster_backfills.state import state_dir

SCOPES = ("imports", "jobs", "cron", "backfills")
_SHORTEST = 16


class Token(BaseModel):
    """A bearer token with its scopes (`imports` or `imports:read`). With an owner, it sees only that owner's jobs."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str = Field(min_length=1, max_length=100)
    token: str = Field(min_length=_SHORTEST, repr=False)
    scopes: frozenset[str]
    user_id: str | None = None
    company_id: str | None = None


class Limits(BaseModel):
    """Limits, from the variables BACKFILLS_WEB_…."""

    upload_bytes: int = Field(default=2 * 1024**3, ge=1)
    unpacked_bytes: int = Field(default=8 * 1024**3, ge=1)
    uploads_open: int = Field(default=20, ge=1)
    upload_hours: float = Field(default=24, gt=0)
    requests_per_second: float = Field(default=50, gt=0)
    connections: int = Field(default=16, ge=2)
    followers: int = Field(default=200, ge=1)
    wait_seconds: float = Field(default=600, ge=0)


@dataclass(frozen=True)
class Settings:
    """`proxy_secret`: the secret that the proxy sends; without one, local requests are let in.
    `development`: `/api/cron/…` accepts GET."""

    tokens: tuple[Token, ...] = ()
    proxy_secret: str = field(default="", repr=False)
    development: bool = False
    limits: Limits = field(default_factory=Limits)
    spool: Path = field(default_factory=lambda: state_dir() / "web")

    @classmethod
    def from_environment(cls, environment: Mapping[str, str] | None = None) -> "Settings":
        """Read the settings. Raises UserError that names an invalid variable."""
        given = os.environ if environment is None else environment
        return cls(
            _tokens(given),
            _secret(given, SECRET_VARIABLE),
            given.get("BACKFILLS_WEB_DEVELOPMENT", "").strip() not in ("", "0"),
            Limits(**from_environment(Limits, "BACKFILLS_WEB_", given)),
        )


def _secret(given: Mapping[str, str], variable: str) -> str:
    """Read a secret. Raises UserError if it is too short."""
    found = given.get(variable, "").strip()
    if found and len(found) < _SHORTEST:
        raise UserError(f"{variable} has fewer than {_SHORTEST} characters.", "Use: openssl rand -hex 24")
    return found


def _tokens(given: Mapping[str, str]) -> tuple[Token, ...]:
    """Tokens from CRON_SECRET and JOBS_TOKEN, which have one scope each, and from BACKFILLS_TOKENS."""
    found: list[dict[str, Any]] = []
    for variable, scope in (("CRON_SECRET", "cron"), ("JOBS_TOKEN", "jobs")):
        if text := _secret(given, variable):
            found.append({"name": scope, "token": text, "scopes": [scope]})
    try:
        listed = json.loads(given.get("BACKFILLS_TOKENS", "").strip() or "[]")
        tokens = TypeAdapter(tuple[Token, ...]).validate_python([*found, *listed])
    except (ValueError, TypeError) as error:
        raise UserError(f"BACKFILLS_TOKENS can't be read: {_reason(error)}.", _EXAMPLE) from None
    known = {*SCOPES, *(f"{scope}:read" for scope in SCOPES)}
    for token in tokens:
        if unknown := token.scopes - known:
            raise UserError(
                f"BACKFILLS_TOKENS gives {token.name} the unknown scope {min(unknown)!r}.",
                f"The scopes are {', '.join(sorted(known))}.",
            )
    return tokens


_EXAMPLE = 'Example: [{"name": "crm", "token": "…", "scopes": ["imports", "jobs:read"]}]'


def _reason(error: Exception) -> str:
    """The error message, without the token itself."""
    if isinstance(error, ValidationError):
        first = error.errors()[0]
        return f"{'.'.join(str(part) for part in first['loc'])}: {first['msg']}"
    return "it is not a JSON list"
