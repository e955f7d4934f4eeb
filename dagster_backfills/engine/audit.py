"""Who asked for what: rows of `backfill.audit`, which nobody can change. Not here: who may."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from typing import Any
from uuid import UUID, uuid4

import psycopg
from psycopg.rows import dict_row

_RECORD = """
insert into backfill.audit (request, who, action, domains, target, outcome, runs, detail)
values (%(request)s, %(who)s, %(action)s, %(domains)s, %(target)s, %(outcome)s, %(runs)s, %(detail)s)
"""
# The last word on each request, the newest first.
_LATEST = """
select * from (
    select distinct on (a.request) a.at, a.who, a.login, a.action, a.domains, a.target, a.outcome, a.runs, a.detail
    from backfill.audit as a
    where %(who)s::text is null or a.who = %(who)s
    order by a.request, a.id desc
) as latest
order by latest.at desc limit %(limit)s
"""


@dataclass(frozen=True)
class Entry:
    """A request: `domains` None where they are not known; `outcome` started, done, failed or refused."""

    who: str
    action: str
    target: str
    domains: Collection[str] | None
    outcome: str
    runs: Sequence[str] = ()
    detail: str = ""
    request: UUID = field(default_factory=uuid4)


def record(conn: psycopg.Connection[Any], entry: Entry) -> None:
    """Write it, in the caller's transaction."""
    domains = None if entry.domains is None else sorted(entry.domains)
    conn.execute(_RECORD, {**vars(entry), "domains": domains, "runs": list(entry.runs)})


def latest(conn: psycopg.Connection[Any], limit: int, who: str | None = None) -> list[dict[str, Any]]:
    """What was asked for, the newest first, each with the last that is known of it."""
    binds = {"limit": limit, "who": who}
    return conn.cursor(row_factory=dict_row).execute(_LATEST, binds).fetchall()


def domains_of(assets: Sequence[str]) -> list[str]:
    """The domains of assets by their names: `progress/cohort_stats` is of `progress`."""
    return sorted({asset.split("/")[0] for asset in assets})
