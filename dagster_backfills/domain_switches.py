"""Which of the five domains are enabled. Only enabled domains are migrated, loaded and shown."""

import logging
import os
from collections.abc import Iterable, Mapping
from importlib.util import find_spec

from dagster_backfills.errors import NotUsableError, UserError, did_you_mean
from dagster_backfills.state import in_checkout

VARIABLE = "BACKFILLS_DOMAINS"
DOMAINS = ("training", "progress", "kintell", "queue", "scoring")
# Run history and failure notifications. Enabled with any other domain, or alone.
OPERATIONS = "operations"
SCHEMAS = {"queue": "jobs"}  # the other domains' schemas have the domain's name
_LABELS = {"web": "`backfills serve`"}
# Modules that a domain imports beyond the base dependencies. The extra with the domain's name installs them.
LIBRARIES = {
    "kintell": ("email_validator", "nats", "openpyxl", "pandera", "polars"),
    "queue": ("mux_python", "openai"),
    "scoring": ("pandera",),
    "web": ("python_multipart",),  # not a domain, but the extra of `backfills serve`
}


def enabled_domains(environment: Mapping[str, str] | None = None) -> tuple[str, ...]:
    """The enabled domains: `BACKFILLS_DOMAINS` is a comma-separated list, `all` or `none`.

    The default is all domains in a checkout and none where the package is installed into another project. Raises
    UserError for an unknown domain.
    """
    every = (*DOMAINS, OPERATIONS)
    given = (os.environ if environment is None else environment).get(VARIABLE, "").strip()
    given = given or ("all" if in_checkout() else "none")
    if given in ("all", "none"):
        return every if given == "all" else ()
    named = {name.strip() for name in given.split(",")}
    for name in sorted(named - set(every)):
        raise UserError(f"{VARIABLE}: there is no domain {name!r}.", did_you_mean(name, every))
    return tuple(domain for domain in every if domain in named or domain == OPERATIONS)


def disabled_domains(environment: Mapping[str, str] | None = None) -> frozenset[str]:
    """The disabled domains, and those whose libraries are not installed.

    An invalid setting disables nothing. Invalid settings and missing libraries are logged, so that the code location
    still loads.
    """
    every, log = (*DOMAINS, OPERATIONS), logging.getLogger("dagster.backfills")
    try:
        on = enabled_domains(environment)
    except UserError as error:
        log.error("%s Loading all domains.", error)
        on = every
    unusable = {domain for domain in on if missing_libraries(domain)}
    for domain in sorted(unusable):
        log.error("%s The domain is not loaded.", missing_libraries(domain))
    return frozenset(every) - frozenset(on) | unusable


def missing_libraries(domain: str) -> str:
    """A message that names the domain's missing libraries and their extra; empty if none is missing."""
    missing = [name for name in LIBRARIES.get(domain, ()) if find_spec(name) is None]
    if not missing:
        return ""
    return (
        f"{_LABELS.get(domain, f'The domain {domain}')} needs libraries that are not installed "
        f"({', '.join(missing)}): pip install 'dagster-backfills[{domain}]'."
    )


def library_of_domain(module: str | None) -> str:
    """The `missing_libraries` message of the domain that needs this missing module; empty for any other module."""
    name = (module or "").partition(".")[0]
    return next((missing_libraries(domain) for domain, names in LIBRARIES.items() if name in names), "")


def require_libraries() -> None:
    """Raise NotUsableError unless the libraries of every enabled domain are installed."""
    for domain in enabled_domains():
        if message := missing_libraries(domain):
            raise NotUsableError(message)


def schemas_of(domains: Iterable[str]) -> frozenset[str]:
    """The schemas of these domains."""
    return frozenset(SCHEMAS.get(domain, domain) for domain in domains)
