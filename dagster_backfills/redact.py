"""Removes secrets from text before it is stored, logged, sent or shown."""

import os
import re
from collections.abc import Mapping
from functools import lru_cache
from urllib.parse import quote, unquote, urlsplit

from dagster_backfills.secret_files import SECRETS

MASK = "***"
_SECRET_NAME = re.compile(
    r"secret|token|passw|credential|apikey|webhook|"
    r"(?:^|_)(?:key|pwd|pass|auth|authorization|dsn|signature|sig|cookie|private)s?(?:_|$)",
    re.IGNORECASE,
)
# Exceptions: variables with these names hold a location, a limit or the shell's working directory.
_NO_SECRET = re.compile(
    r"^(?:OLD)?PWD$|_(?:FILE|PATH|DIR|URL|HOST|SOCK|TTL|SECONDS|LIMIT|MAX)$", re.IGNORECASE
)
_SHORTEST = 6
# Formats of well-known keys: model APIs, code hosts, chat, clouds, payment, mail, registries, NATS seeds.
_KEYS = (
    r"\b(?:sk|pk|rk|whsec|gh[opsur]|github_pat|xox[abeprs]|xapp|glpat|hf|npm|pypi|dckr_pat|dop_v1|shp(?:at|ss)|ya29)"
    r"[-_.][A-Za-z0-9_-]{8,}",
    r"\b(?:AKIA|ASIA)[0-9A-Z]{16}\b",
    r"\bAIza[A-Za-z0-9_-]{30,}",
    r"\bSG\.[A-Za-z0-9_-]{16,}\.[A-Za-z0-9_-]{16,}",
    r"\bS[NCOUAX][A-Z2-7]{56}\b",
    r"\beyJ[A-Za-z0-9_-]{8,}\.[A-Za-z0-9_-]{8,}\.[A-Za-z0-9_-]*",
    r"(?s)-----BEGIN [A-Z ]*PRIVATE KEY-----.*?(?:-----END [A-Z ]*PRIVATE KEY-----|\Z)",
)
_NAMES = (
    r"api[_-]?key|access[_-]?key|account[_-]?key|token|secret|passw(?:or)?d|passphrase|signature|credential"
)
_PATTERNS = tuple(
    (re.compile(pattern), replacement)
    for pattern, replacement in (
        *((key, MASK) for key in _KEYS),
        # user:password@. The user name stays, and so does the literal word "password", which hints contain.
        (r"(\w+:/{0,2}[^\s:/@'\"]*:)(?!password@)[^\s@]+(?=@)", rf"\1{MASK}"),
        # token@, as NATS and code hosts accept it. A Postgres user name without a password is not a secret.
        (r"(?i)(?<=://)(?<!postgres://)(?<!postgresql://)[^\s:/@'\"?#]+(?=@)", MASK),
        (r"(?i)\b(bearer|basic|token)\s+[A-Za-z0-9._~+/=-]{8,}", rf"\1 {MASK}"),
        # A webhook's path is its secret: Slack, Discord, Teams, Google Chat.
        (r"(?i)(hooks\.slack(?:-gov)?\.com|discord(?:app)?\.com/api/webhooks|[\w.-]*webhook\.office\.com)/[^\s'\"<>]+",
         rf"\1/{MASK}"),
        (r"(?i)(?<![A-Za-z0-9])((?:sig|key|code)=)(?!\*\*\*)[A-Za-z0-9%._~+/=-]{8,}", rf"\1{MASK}"),
        (rf"""(?ix)([\w.-]*(?:{_NAMES})[\w.-]*["']?\s*[=:]\s*)(?!["']?\*\*\*)(?:"[^"]*"|'[^']*'|[^\s"'&,;)}}\]]+)""",
         rf"\1{MASK}"),
    )
)  # fmt: skip


def redact(text: str, environment: Mapping[str, str] | None = None) -> str:
    """`text` with secrets masked.

    Masks the values of environment variables whose names suggest a secret, credentials in URLs, bearer tokens, webhook
    paths, signatures, and keys in well-known formats.
    """
    variables = tuple((os.environ if environment is None else environment).items())
    for value in _secrets(variables):
        text = text.replace(value, MASK)
    for pattern, replacement in _PATTERNS:
        text = pattern.sub(replacement, text)
    return text


@lru_cache(maxsize=4)
def _secrets(items: tuple[tuple[str, str], ...]) -> tuple[str, ...]:
    """The secret values, both plain and percent-encoded, longest first."""
    secrets: set[str] = set()
    for name, value in items:
        if "://" in value:
            secrets |= _in_url(value)
        suspicious = _SECRET_NAME.search(name) and not _NO_SECRET.search(name)
        if (suspicious or (name in SECRETS and "://" not in value)) and len(value.strip()) >= _SHORTEST:
            secrets.add(value.strip())
    secrets |= {form for value in secrets for form in (unquote(value), quote(value, safe=""))}
    return tuple(sorted(secrets, key=len, reverse=True))


def _in_url(value: str) -> set[str]:
    """The password or token in a URL. A password that equals the user name does not count as a secret."""
    try:
        parts = urlsplit(value)
        user, password = parts.username or "", parts.password or ""
    except ValueError:
        return set()
    if password:
        return {password} if len(password) >= 4 and password != user else set()
    return {user} if len(user) >= _SHORTEST and not parts.scheme.startswith("postgres") else set()
