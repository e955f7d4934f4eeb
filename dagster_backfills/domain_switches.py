"""Which of the five domains are switched on: what is migrated, loaded and shown. Not here: what they are."""

import logging
import os
from collections.abc import Iterable, Mapping
from importlib.util import find_spec

from dagster_backfills.errors import NotUsableError, UserError, close_to
from dagster_backfills.state import in_checkout

VARIABLE = "BACKFILLS_DOMAINS"
DOMAINS = ("training", "progress", "kintell", "queue", "scoring")
# The history of the instance's runs, and word of failed ones: with any of the others, or by itself.
OPERATIONS = "operations"
SCHEMAS = {"queue": "jobs"}  # of the others by their name
_WHAT = {"web": "`backfills serve`"}
# What a domain imports beyond the engine's dependencies: the package's extra of its name.
LIBRARIES = {
    "kintell": ("email_validator", "nats", "openpyxl", "pandera", "polars"),
    "queue": ("mux_python", "openai"),
    "scoring": ("pandera",),
    "web": ("python_multipart",),  # no domain: `backfills serve`
}


def switched_on(environment: Mapping[str, str] | None = None) -> tuple[str, ...]:
    """The domains that `BACKFILLS_DOMAINS` names, with commas between them, or `all`, or `none`.

    Without it all in a checkout, and none where the package is installed into a project of somebody else's. Raises
    UserError for one that there is not.
    """
    every = (*DOMAINS, OPERATIONS)
    given = (os.environ if environment is None else environment).get(VARIABLE, "").strip()
    given = given or ("all" if in_checkout() else "none")
    if given in ("all", "none"):
        return every if given == "all" else ()
    named = {name.strip() for name in given.split(",")}
    for name in sorted(named - set(every)):
        raise UserError(f"{VARIABLE}: there is no domain {name!r}.", close_to(name, every))
    return tuple(domain for domain in every if domain in named or domain == OPERATIONS)


def switched_off(environment: Mapping[str, str] | None = None) -> frozenset[str]:
    """The others, and those whose libraries are not installed.

    A bad setting switches nothing off. It and a missing library are logged: they must not keep a location from loading.
    """
    every, log = (*DOMAINS, OPERATIONS), logging.getLogger("dagster.backfills")
    try:
        on = switched_on(environment)
    except UserError as error:
        log.error("%s All are loaded.", error)
        on = every
    unusable = {domain for domain in on if lacking(domain)}
    for domain in sorted(unusable):
        log.error("%s It is left out.", lacking(domain))
    return frozenset(every) - frozenset(on) | unusable


def lacking(domain: str) -> str:
    """What a domain lacks to be used, and where it comes from; nothing where it lacks nothing."""
    missing = [name for name in LIBRARIES.get(domain, ()) if find_spec(name) is None]
    if not missing:
        return ""
    return (
        f"{_WHAT.get(domain, f'The domain {domain}')} lacks libraries ({', '.join(missing)}): "
        f"pip install 'dagster-backfills[{domain}]'."
    )


def library_of_domain(module: str | None) -> str:
    """What to say where a module can't be imported that a domain needs; nothing of any other."""
    name = (module or "").partition(".")[0]
    return next((lacking(domain) for domain, names in LIBRARIES.items() if name in names), "")


def require_libraries() -> None:
    """Raise NotUsableError unless every domain that is switched on has what it needs."""
    for domain in switched_on():
        if said := lacking(domain):
            raise NotUsableError(said)


def schemas_of(domains: Iterable[str]) -> frozenset[str]:
    """The schemas of these domains."""
    return frozenset(SCHEMAS.get(domain, domain) for domain in domains)
