"""What the environment says about media and engines, read when a job starts. Not here: the queue's own settings."""

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from dagster_backfills.domains.queue.errors import PermanentJobError


@dataclass(frozen=True)
class MediaRules:
    """Where media may come from, and how much of it.

    `hosts` are exact names, `*.example.com`, or `name:port`; one without a port means the scheme's own port.
    `private_hosts` may resolve to a private address; no other may. `folders` serve `file:` URLs.
    """

    schemes: frozenset[str] = frozenset({"https"})
    hosts: tuple[str, ...] = ()
    private_hosts: tuple[str, ...] = ()
    folders: tuple[Path, ...] = ()
    max_bytes: int = 2048 * 1024 * 1024
    max_seconds: float = 900.0

    @classmethod
    def from_environment(cls, env: Mapping[str, str] | None = None) -> "MediaRules":
        """JOBS_MEDIA_SCHEMES, _HOSTS, _PRIVATE_HOSTS, _FOLDERS (comma-separated), _MAX_MB and _MAX_SECONDS."""
        env = os.environ if env is None else env
        return cls(
            schemes=frozenset(_listed(env, "JOBS_MEDIA_SCHEMES") or ("https",)),
            hosts=_listed(env, "JOBS_MEDIA_HOSTS"),
            private_hosts=_listed(env, "JOBS_MEDIA_PRIVATE_HOSTS"),
            folders=tuple(Path(f) for f in env.get("JOBS_MEDIA_FOLDERS", "").split(",") if f.strip()),
            max_bytes=int(number(env, "JOBS_MEDIA_MAX_MB", 2048) * 1024 * 1024),
            max_seconds=number(env, "JOBS_MEDIA_MAX_SECONDS", 900),
        )


def number(env: Mapping[str, str], name: str, default: float) -> float:
    """A positive number from the environment. Raises PermanentJobError, naming the variable, for anything else."""
    try:
        value = float(env.get(name) or default)
    except ValueError:
        value = 0.0
    if value > 0:
        return value
    raise PermanentJobError(f"{name} must be a positive number, not {env[name]!r}.", kind="configuration")


def engine_of(name: str, env: Mapping[str, str] | None = None) -> str:
    """`openai` or `embedded`, from JOBS_TRANSCRIPTION_ENGINE or JOBS_SOP_ENGINE (`name` is that middle part).

    Where nothing is said: `openai` if OPENAI_API_KEY is set, else `embedded`.
    """
    env = os.environ if env is None else env
    variable = f"JOBS_{name}_ENGINE"
    said = env.get(variable, "") or ("openai" if env.get("OPENAI_API_KEY") else "embedded")
    if said not in ("openai", "embedded"):
        raise PermanentJobError(f"{variable} must be openai or embedded, not {said!r}.", kind="configuration")
    return said


def _listed(env: Mapping[str, str], name: str) -> tuple[str, ...]:
    return tuple(part.strip().lower() for part in env.get(name, "").split(",") if part.strip())
