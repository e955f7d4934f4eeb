"""What the doors are told by their environment, read once when they open. Not here: what the domains are told."""

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
    """Who a bearer token is, and what it may: a scope, or one with `:read`. With an owner it sees the owner's jobs."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str = Field(min_length=1, max_length=100)
    token: str = Field(min_length=_SHORTEST, repr=False)
    scopes: frozenset[str]
    user_id: str | None = None
    company_id: str | None = None


class Limits(BaseModel):
    """BACKFILLS_WEB_…: how much, how fast, how long."""

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
    """`proxy_secret`: what the proxy proves itself with; without one, who comes from this machine is let in.
    `development`: the schedules may be called by GET."""

    tokens: tuple[Token, ...] = ()
    proxy_secret: str = field(default="", repr=False)
    development: bool = False
    limits: Limits = field(default_factory=Limits)
    spool: Path = field(default_factory=lambda: state_dir() / "web")

    @classmethod
    def from_environment(cls, environment: Mapping[str, str] | None = None) -> "Settings":
        """Raises UserError that names the variable that is wrong."""
        given = os.environ if environment is None else environment
        return cls(
            _tokens(given),
            _secret(given, SECRET_VARIABLE),
            given.get("BACKFILLS_WEB_DEVELOPMENT", "").strip() not in ("", "0"),
            Limits(**from_environment(Limits, "BACKFILLS_WEB_", given)),
        )


def _secret(given: Mapping[str, str], variable: str) -> str:
    """Raises UserError for one that is too short to be one."""
    found = given.get(variable, "").strip()
    if found and len(found) < _SHORTEST:
        raise UserError(f"{variable} has fewer than {_SHORTEST} characters.", "openssl rand -hex 24")
    return found


def _tokens(given: Mapping[str, str]) -> tuple[Token, ...]:
    """CRON_SECRET and JOBS_TOKEN, each for one thing; BACKFILLS_TOKENS for all others."""
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
        if strange := token.scopes - known:
            raise UserError(
                f"BACKFILLS_TOKENS gives {token.name} the scope {min(strange)!r}.",
                f"There are {', '.join(sorted(known))}.",
            )
    return tokens


_EXAMPLE = 'Write it so: [{"name": "crm", "token": "…", "scopes": ["imports", "jobs:read"]}]'


def _reason(error: Exception) -> str:
    """What is wrong, without quoting a token."""
    if isinstance(error, ValidationError):
        first = error.errors()[0]
        return f"{'.'.join(str(part) for part in first['loc'])}: {first['msg']}"
    return "it is no JSON list"
