"""The audit log: append-only rows of `backfill.audit`. Not here: authorization (`instance/door`, `web/auth`)."""

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any
from uuid import UUID, uuid4

import psycopg
from psycopg.rows import dict_row

_RECORD = """
insert into backfill.audit (request, who, action, domains, target, outcome, runs, detail)
values (%(request)s, %(who)s, %(action)s, %(domains)s, %(target)s, %(outcome)s, %(runs)s, %(detail)s)
"""
# The latest entry of each request, newest first.
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
    """One audit entry. Entries of one request share `request`; a request that starts and ends has two.

    A launch from the command line or over HTTP has one, whose outcome is that of its run.

    domains: None if unknown. outcome: `started`, `done`, `failed` or `refused`.
    """

    who: str
    action: str
    target: str
    domains: Collection[str] | None
    outcome: str
    runs: Sequence[str] = ()
    detail: str = ""
    request: UUID = field(default_factory=uuid4)


def record(conn: psycopg.Connection[Any], entry: Entry) -> None:
    """Insert the entry in the caller's transaction."""
    domains = None if entry.domains is None else sorted(entry.domains)
    conn.execute(_RECORD, {**vars(entry), "domains": domains, "runs": list(entry.runs)})


def latest(conn: psycopg.Connection[Any], limit: int, who: str | None = None) -> list[dict[str, Any]]:
    """Returns the latest entry of each request, newest first. who: only this user's requests."""
    binds = {"limit": limit, "who": who}
    return conn.cursor(row_factory=dict_row).execute(_LATEST, binds).fetchall()


def domains_of(assets: Iterable[str]) -> list[str]:
    """Returns the domains of asset paths: `progress` for `progress/cohort_stats`."""
    return sorted({asset.split("/")[0] for asset in assets})
