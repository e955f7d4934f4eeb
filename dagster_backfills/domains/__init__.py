"""The domains' cores, which know no Dagster, and which of them are switched on."""

import logging
import os
from collections.abc import Mapping

from dagster_backfills.errors import UserError, close_to

VARIABLE = "BACKFILLS_DOMAINS"
DOMAINS = ("training", "progress", "kintell", "queue", "scoring")


def switched_on(environment: Mapping[str, str] | None = None) -> tuple[str, ...]:
    """The domains that `BACKFILLS_DOMAINS` names, with commas between them; all without it, `none` for none.

    Raises UserError for one that there is not.
    """
    given = (os.environ if environment is None else environment).get(VARIABLE, "").strip()
    if given in ("", "none"):
        return () if given else DOMAINS
    named = [name.strip() for name in given.split(",")]
    for name in named:
        if name not in DOMAINS:
            raise UserError(f"{VARIABLE}: there is no domain {name!r}.", close_to(name, DOMAINS))
    return tuple(domain for domain in DOMAINS if domain in named)


def switched_off(environment: Mapping[str, str] | None = None) -> frozenset[str]:
    """The others. A bad setting switches nothing off, and is logged: it must not keep a location from loading."""
    try:
        return frozenset(DOMAINS) - frozenset(switched_on(environment))
    except UserError as error:
        logging.getLogger("dagster.backfills").error("%s All are loaded.", error)
        return frozenset()
