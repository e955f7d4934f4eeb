"""`backfills status`: one page over all domains. Only reads."""

from dataclasses import asdict, dataclass
from typing import Annotated, Any

import psycopg
import typer
from psycopg import sql
from psycopg.rows import class_row, dict_row

from dagster_backfills.cli.domain_runs import database
from dagster_backfills.cli.output import duration, print_json, print_table, say

app = typer.Typer()

# Every domain has a view of this name and these columns in its schema.
_DOMAINS = "select schemaname from pg_views where viewname = 'overview' order by schemaname"
_OVERVIEW = (
    "select {name} as domain, of_what, units, up_to_date, missing, stale, failed, oldest_stale from {view}"
)
_RUNNING = """
select
    p.run_id, array_to_string(p.assets, ', ') as assets, p.partitions_total, p.partitions_done, p.units_per_second,
    p.time_left,
    clock_timestamp() - coalesce(
        (select max(b.committed_at) from backfill.batches as b where b.run_id = p.run_id and b.step = p.step),
        p.started_at
    ) as silent_for
from backfill.run_progress as p
where p.outcome = 'running'
order by p.started_at
"""
_FAILURES = """
select asset, count(*) as failures, max(last_seen) as last_seen
from backfill.failures
where resolved_at is null
group by asset
order by asset
"""


@dataclass(frozen=True)
class DomainOverview:
    """One domain: its units (cohorts, organizations, …), and how many of them are in which state."""

    domain: str
    of_what: str
    units: int
    up_to_date: int
    missing: int
    stale: int
    failed: int
    oldest_stale: Any


@app.command()
def status(
    json: Annotated[
        bool, typer.Option("--json", help="Print JSON on stdout and nothing else there.")
    ] = False,
) -> None:
    """What is up to date, missing, stale, failed and running, in every domain."""
    with database() as conn:
        overview = _overview(conn)
        running, failures = _rows(conn, _RUNNING), _rows(conn, _FAILURES)
        server = f"PostgreSQL {conn.info.server_version // 10000}, database {conn.info.dbname}"
    if json:
        print_json(
            {
                "server": server,
                "domains": [asdict(o) for o in overview],
                "running": running,
                "failures": failures,
            }
        )
        return
    say(server)
    print_table(
        ["domain", "of", "units", "up to date", "missing", "stale", "failed", "oldest change not seen"],
        [tuple(asdict(each).values()) for each in overview],
    )
    for run in running:
        say(
            f"Run {run['run_id']} is at {run['assets']}: {run['partitions_done']:,} of {run['partitions_total']:,} "
            f"partitions, {run['units_per_second']:,.0f} units/s, {duration(run['time_left'])} left; "
            f"its last batch was {duration(run['silent_for'])} ago."
        )
    for each in failures:
        say(
            f"{each['asset']}: {each['failures']:,} open failures, the last at {each['last_seen']:%Y-%m-%d %H:%M} UTC."
        )
    if failures:
        say("See them: backfills failures list · try them again: backfills failures retry")


def _overview(conn: psycopg.Connection[Any]) -> list[DomainOverview]:
    found = []
    for (domain,) in conn.execute(_DOMAINS).fetchall():
        statement = sql.SQL(_OVERVIEW).format(name=domain, view=sql.Identifier(domain, "overview"))
        found += conn.cursor(row_factory=class_row(DomainOverview)).execute(statement).fetchall()
    return found


def _rows(conn: psycopg.Connection[Any], statement: Any) -> list[dict[str, Any]]:
    return conn.cursor(row_factory=dict_row).execute(statement).fetchall()
