"""What each user may do, by domain, from a file in TOML. Not here: who the user is (`identity`).

[users.olga]
"*" = "admin"

[groups.trainers]
training = "undo"
"*" = "look"
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
EVERY = "*"  # of a domain's rights: those in all that are not named


class Right(IntEnum):
    """Each includes those before it."""

    look = 0
    launch = 1
    undo = 2
    admin = 3


@dataclass(frozen=True)
class Roles:
    """By user and by group: the right in each domain. Who is named nowhere may look."""

    users: Mapping[str, Mapping[str, Right]] = field(default_factory=dict)
    groups: Mapping[str, Mapping[str, Right]] = field(default_factory=dict)
    anybody: Right = Right.look

    def may(self, who: Identity, right: Right, domains: Collection[str] | None) -> bool:
        """Whether `who` has this right in each of the domains; None stands for what is not known, and so for all."""
        return all(self._right(who, domain) >= right for domain in (domains or self._named()))

    def _named(self) -> set[str]:
        """All domains, as far as rights can differ among them."""
        given = (*self.users.values(), *self.groups.values())
        return {EVERY, *(domain for rights in given for domain in rights)}

    def _right(self, who: Identity, domain: str) -> Right:
        given = [self.users.get(who.user, {}), *(self.groups.get(group, {}) for group in who.groups)]
        rights = (each.get(domain, each.get(EVERY, Right.look)) for each in given)
        return max(self.anybody, *rights)


ALL_MAY_ALL = Roles(anybody=Right.admin)


def read_roles(path: str) -> Roles:
    """The file's roles; without a file, whoever comes in may do everything. Raises NotUsableError for a bad file."""
    if not path:
        return ALL_MAY_ALL
    try:
        written = tomllib.loads(Path(path).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        why = error.strerror if isinstance(error, OSError) else error
        raise _unusable(path, f"{why}") from error
    strangers = set(written) - {"users", "groups"}
    if strangers:
        raise _unusable(path, f"[{min(strangers)}] is neither users nor groups")
    users, groups = (_section(path, kind, written.get(kind, {})) for kind in ("users", "groups"))
    return Roles(users, groups)


def _section(path: str, kind: str, written: Any) -> dict[str, dict[str, Right]]:
    rights: dict[str, dict[str, Right]] = {}
    for name, domains in (written if isinstance(written, dict) else {kind: written}).items():
        if not isinstance(domains, dict):
            raise _unusable(path, f"{kind}.{name} is no table of domains")
        for domain, right in domains.items():
            if not isinstance(right, str) or right not in Right.__members__:
                raise _unusable(path, f"{kind}.{name}: {domain} = {right!r} is no right")
            rights.setdefault(name, {})[domain] = Right[right]
    return rights


def _unusable(path: str, why: str) -> NotUsableError:
    return NotUsableError(
        f"{ROLES_VARIABLE} names {path}, which can't be used: {why}.",
        f'Write [users.NAME] or [groups.NAME], below it DOMAIN = "{"|".join(Right.__members__)}".',
    )
