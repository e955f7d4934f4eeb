"""Authorization: each user's right in each domain, read from a TOML file. Not here: authentication (`identity`).

[users.olga]
"*" = "admin"

[groups.trainers]
training = "undo"
"*" = "view"
"""

import tomllib
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from enum import IntEnum
from pathlib import Path
from typing import Any

from dagster_backfills.errors import NotUsableError
from dagster_backfills.identity import Identity

ROLES_VARIABLE = "BACKFILLS_ROLES"
EVERY = "*"  # the right in all domains that are not listed


class Right(IntEnum):
    """Each right includes those before it."""

    view = 0
    launch = 1
    undo = 2
    admin = 3


@dataclass(frozen=True)
class Roles:
    """The right in each domain, by user and by group. A user who is not listed has the right `view`."""

    users: Mapping[str, Mapping[str, Right]] = field(default_factory=dict)
    groups: Mapping[str, Mapping[str, Right]] = field(default_factory=dict)
    anybody: Right = Right.view

    def may(self, who: Identity, right: Right, domains: Collection[str] | None) -> bool:
        """Whether `who` has this right in each of the domains. None means unknown and requires it in all domains."""
        return all(self._right(who, domain) >= right for domain in (domains or self._listed()))

    def _listed(self) -> set[str]:
        """The domains that the file lists, and `*` for all others."""
        listed = (*self.users.values(), *self.groups.values())
        return {EVERY, *(domain for rights in listed for domain in rights)}

    def _right(self, who: Identity, domain: str) -> Right:
        given = [self.users.get(who.user, {}), *(self.groups.get(group, {}) for group in who.groups)]
        rights = (each.get(domain, each.get(EVERY, Right.view)) for each in given)
        return max(self.anybody, *rights)


def read_roles(path: str) -> Roles:
    """The roles in a file. Without a file, everyone may do everything. Raises NotUsableError for an invalid file."""
    if not path:
        return Roles(anybody=Right.admin)
    try:
        document = tomllib.loads(Path(path).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        why = error.strerror if isinstance(error, OSError) else error
        raise _unusable(path, f"{why}") from error
    unknown = set(document) - {"users", "groups"}
    if unknown:
        raise _unusable(path, f"[{min(unknown)}] is neither users nor groups")
    users, groups = (_section(path, kind, document.get(kind, {})) for kind in ("users", "groups"))
    return Roles(users, groups)


def _section(path: str, kind: str, section: Any) -> dict[str, dict[str, Right]]:
    rights: dict[str, dict[str, Right]] = {}
    for name, domains in (section if isinstance(section, dict) else {kind: section}).items():
        if not isinstance(domains, dict):
            raise _unusable(path, f"{kind}.{name} is not a table of domains")
        for domain, right in domains.items():
            if not isinstance(right, str) or right not in Right.__members__:
                raise _unusable(path, f"{kind}.{name}: {domain} = {right!r} is not a right")
            rights.setdefault(name, {})[domain] = Right[right]
    return rights


def _unusable(path: str, why: str) -> NotUsableError:
    return NotUsableError(
        f"{ROLES_VARIABLE} names {path}, which can't be used: {why}.",
        f'Write [users.NAME] or [groups.NAME], and below it DOMAIN = "{"|".join(Right.__members__)}".',
    )
