"""Taking secrets out of text before it is stored or logged. Not here: what is stored."""

import os
import re
from collections.abc import Iterable, Mapping
from functools import lru_cache
from urllib.parse import unquote, urlsplit

MASK = "[redacted]"
_SECRET_NAME = re.compile(
    r"secret|token|passw|credential|apikey|"
    r"(?:^|_)(?:key|pwd|pass|auth|authorization|dsn|signature|cookie|private)s?(?:_|$)",
    re.IGNORECASE,
)
_PATTERNS = (
    (
        re.compile(r"-----BEGIN [A-Z ]*PRIVATE KEY-----.*?(-----END [A-Z ]*PRIVATE KEY-----|\Z)", re.DOTALL),
        MASK,
    ),
    (re.compile(r"(?<=://)[^/\s:@'\"]*:[^/\s@'\"]+(?=@)"), MASK),
    (re.compile(r"\b(bearer|basic|token)\s+[A-Za-z0-9._~+/=-]{8,}", re.IGNORECASE), rf"\1 {MASK}"),
    (re.compile(r"\b(?:sk|pk|rk|ghp|gho|xox[abp]|glpat|hf)[-_][A-Za-z0-9_-]{8,}"), MASK),
    (re.compile(r"\bAKIA[0-9A-Z]{16}\b"), MASK),
    (re.compile(r"\beyJ[A-Za-z0-9_-]{8,}\.[A-Za-z0-9_-]{8,}\.[A-Za-z0-9_-]*"), MASK),
    (
        re.compile(
            r"""(?ix)([\w.-]*(?:api[_-]?key|access[_-]?key|token|secret|passw(?:or)?d|signature|credential)[\w.-]*
            ["']?\s*[=:]\s*["']?)(?!\[redacted\])[^\s"'&,;)}\]]+"""
        ),
        rf"\1{MASK}",
    ),
)


def secrets_of(environment: Mapping[str, str]) -> tuple[str, ...]:
    """The values that must never be shown: of variables with a secret's name, and passwords within URLs."""
    found = set()
    for name, value in environment.items():
        if _SECRET_NAME.search(name) and len(value) >= 6:
            found.add(value)
        if "://" in value:
            found |= _url_passwords(value)
    return tuple(sorted(found, key=len, reverse=True))


def redact(text: str, environment: Mapping[str, str] | None = None, also: Iterable[str] = ()) -> str:
    """`text` without the values of secret-looking variables, URL passwords, bearer tokens and keys."""
    values = secrets_of(environment) if environment is not None else _own_secrets(tuple(os.environ.items()))
    for value in (*values, *(a for a in also if a)):
        text = text.replace(value, MASK)
    for pattern, replacement in _PATTERNS:
        text = pattern.sub(replacement, text)
    return text


@lru_cache(maxsize=4)
def _own_secrets(items: tuple[tuple[str, str], ...]) -> tuple[str, ...]:
    return secrets_of(dict(items))


def _url_passwords(value: str) -> set[str]:
    try:
        password = urlsplit(value).password
    except ValueError:
        return set()
    return {p for p in (password, unquote(password or "")) if p and len(p) >= 4}
