"""The one place where secrets are taken out of text before it is stored, logged, sent or shown. Not here: the text."""

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
# A variable of such a name says where the secret lies, or what shape it has, or where the shell is.
_NO_SECRET = re.compile(
    r"^(?:OLD)?PWD$|_(?:FILE|PATH|DIR|URL|HOST|SOCK|TTL|SECONDS|LIMIT|MAX)$", re.IGNORECASE
)
_SHORTEST = 6
# The shapes of well-known keys: model APIs, code hosts, chat, clouds, payment, mail, registries, NATS seeds.
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
        # user:password@; the user's name stays, and the word itself, as hints have it.
        (r"(\w+:/{0,2}[^\s:/@'\"]*:)(?!password@)[^\s@]+(?=@)", rf"\1{MASK}"),
        # token@, as NATS and code hosts take it; a database's user alone is none.
        (r"(?i)(?<=://)(?<!postgres://)(?<!postgresql://)[^\s:/@'\"?#]+(?=@)", MASK),
        (r"(?i)\b(bearer|basic|token)\s+[A-Za-z0-9._~+/=-]{8,}", rf"\1 {MASK}"),
        # The path of a webhook is the secret: Slack, Discord, Teams, Google Chat.
        (r"(?i)(hooks\.slack(?:-gov)?\.com|discord(?:app)?\.com/api/webhooks|[\w.-]*webhook\.office\.com)/[^\s'\"<>]+",
         rf"\1/{MASK}"),
        (r"(?i)(?<![A-Za-z0-9])((?:sig|key|code)=)(?!\*\*\*)[A-Za-z0-9%._~+/=-]{8,}", rf"\1{MASK}"),
        (rf"""(?ix)([\w.-]*(?:{_NAMES})[\w.-]*["']?\s*[=:]\s*)(?!["']?\*\*\*)(?:"[^"]*"|'[^']*'|[^\s"'&,;)}}\]]+)""",
         rf"\1{MASK}"),
    )
)  # fmt: skip


def redact(text: str, environment: Mapping[str, str] | None = None) -> str:
    """`text` without the secrets of the environment, and without whatever looks like one.

    Those are the values of variables that are named as secrets, what stands before the @ of a URL, bearer tokens,
    webhooks, signatures, and keys of well-known shapes.
    """
    own = tuple(os.environ.items()) if environment is None else tuple(environment.items())
    for value in _secrets(own):
        text = text.replace(value, MASK)
    for pattern, replacement in _PATTERNS:
        text = pattern.sub(replacement, text)
    return text


@lru_cache(maxsize=4)
def _secrets(items: tuple[tuple[str, str], ...]) -> tuple[str, ...]:
    """The values that must never be shown, the longest first, as they are and as URLs have them."""
    found: set[str] = set()
    for name, value in items:
        if "://" in value:
            found |= _in_url(value)
        secret = _SECRET_NAME.search(name) and not _NO_SECRET.search(name)
        if (secret or (name in SECRETS and "://" not in value)) and len(value.strip()) >= _SHORTEST:
            found.add(value.strip())
    found |= {form for value in found for form in (unquote(value), quote(value, safe=""))}
    return tuple(sorted(found, key=len, reverse=True))


def _in_url(value: str) -> set[str]:
    """A URL's password, or the token in its place, unless it is the user's name too and so no secret."""
    try:
        parts = urlsplit(value)
        user, password = parts.username or "", parts.password or ""
    except ValueError:
        return set()
    if password:
        return {password} if len(password) >= 4 and password != user else set()
    return {user} if len(user) >= _SHORTEST and not parts.scheme.startswith("postgres") else set()
