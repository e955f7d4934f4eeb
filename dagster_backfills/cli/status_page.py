"""The data of `backfills status`: all backfills and the Dagster instance. Not here: printing it (`cli.status`)."""

from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import psycopg

from dagster_backfills.cli.instance import InstanceState, read_instance, runs_of
from dagster_backfills.cli.overview import Overview, overviews
from dagster_backfills.domains.scoring.chain import newest_day
from dagster_backfills.domains.scoring.status import chain_of
from dagster_backfills.postgres.statements import load_statements

_CHAIN_DAYS = 3
_STATEMENTS = load_statements(Path(__file__).with_name("status.sql"))


@dataclass(frozen=True)
class StatusPage:
    """A snapshot. The lists hold the rows of the statements in `status.sql`."""

    at: datetime
    server: str
    backfills: list[Overview]
    running: list[dict[str, Any]]
    held: list[dict[str, Any]]
    imports: list[dict[str, Any]]
    queue: list[dict[str, Any]]
    chain: list[dict[str, Any]]
    failures: list[dict[str, Any]]
    dagster: InstanceState


def read_page(conn: psycopg.Connection[Any], url: str, *, ticks: bool = True) -> StatusPage:
    """Read everything. The connection must be in autocommit mode; nothing is written."""
    dagster = read_instance(url, ticks)
    return StatusPage(
        at=datetime.now(UTC),
        server=f"PostgreSQL {conn.info.server_version // 10000}, database {conn.info.dbname}",
        backfills=overviews(conn),
        running=_running(conn, ask_dagster=not dagster.problem),
        held=_STATEMENTS.held.dicts(conn),
        imports=_STATEMENTS.imports.dicts(conn) if _has(conn, "kintell") else [],
        queue=_STATEMENTS.queue.dicts(conn) if _has(conn, "jobs") else [],
        chain=_chain(conn) if _has(conn, "scoring") else [],
        failures=_STATEMENTS.failures.dicts(conn),
        dagster=dagster,
    )


def _running(conn: psycopg.Connection[Any], *, ask_dagster: bool) -> list[dict[str, Any]]:
    """Runs recorded as running, without those that Dagster knows to have ended."""
    runs = _STATEMENTS.running.dicts(conn)
    known = runs_of(each["run_id"] for each in runs) if runs and ask_dagster else {}
    return [each for each in runs if each["run_id"] not in known or not known[each["run_id"]].is_finished]


def _has(conn: psycopg.Connection[Any], schema: str) -> bool:
    """Whether the domain's schema exists."""
    return conn.execute("select to_regnamespace(%s)", [schema]).fetchone() != (None,)


def _chain(conn: psycopg.Connection[Any]) -> list[dict[str, Any]]:
    """The scoring chain of the last complete days, newest first."""
    days = chain_of(conn, newest_day(datetime.now(UTC).date()), _CHAIN_DAYS)
    return [
        {"day": each.day, **{link.asset: str(link) for link in each.links}, "remark": each.remark}
        for each in days
    ]
