"""Compares the scoring chain of one day with its feature query in psql; measures the same day again, and a year.

An embedded Postgres holds the sample data and Dagster's storage. An asset's time is that of its step, in this
process. The year is one run of the three assets over a range of days, as a backfill launches it. Prints a table, then
one JSON object.
"""

import argparse
import json
import os
import re
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import date, timedelta
from pathlib import Path

import dagster as dg
import psycopg

from benchmarks.progress import psql
from benchmarks.servers import as_writer
from dagster_backfills.dagster.io_manager import PostgresIOManager
from dagster_backfills.dagster.resource import PostgresResource
from dagster_backfills.defs.scoring import assets
from dagster_backfills.domains.scoring.settings import settings_from
from dagster_backfills.domains.scoring.statements import STATEMENTS
from dagster_backfills.instance.dagster_home import with_search_path
from dagster_backfills.postgres.embedded import EmbeddedServer
from dagster_backfills.postgres.migrations import apply_migrations

ROOT = Path(__file__).resolve().parents[1]
NEWEST = date(2026, 6, 30)
CHAIN = [assets.commitment_scores, assets.churn_risk_scores, assets.coach_actions]

# About 30 visits per member: half come often, a third weekly, some seldom; a tenth have stopped.
_DATA = """
select setseed(0.42);
insert into scoring.gyms select 'gym_' || lpad(g::text, 4, '0'), 'Gym ' || g from generate_series(1, 500) as g;
insert into scoring.coaches
select 'coa_' || lpad(c::text, 5, '0'), 'gym_' || lpad(((c - 1) %% 500 + 1)::text, 4, '0')
from generate_series(1, 5000) as c;
create temp table habits as
select
    'mem_' || lpad(i::text, 7, '0') as id, i,
    case when random() < 0.08 then 15 + random() * 6 when random() < 0.3 then 6 + random() * 4 else 1.6 + random() * 3
    end as gap,
    case when random() < 0.1 then (15 + random() * 60)::int else (random() * 6)::int end as last,
    (20 + random() * 20)::int as n
from generate_series(1, {members}) as i;
insert into scoring.members (id, gym_id, first_name, last_name, status, joined_date, expected_visits_per_week)
select id, 'gym_' || lpad((i %% 500 + 1)::text, 4, '0'), 'First' || i, 'Last' || i, 'active',
    date '{newest}' - (last + gap * n)::int - 5, case when i %% 3 = 0 then 1 + i %% 4 end
from habits;
set session_replication_role = replica;
insert into scoring.member_coaches
select 'coa_' || lpad(((i %% 500) + 1 + 500 * (i %% 10))::text, 5, '0'), id from habits;
drop index scoring.visits_member_id_visited_on_idx;
insert into scoring.visits
select id, date '{newest}' - last - (k * gap + random() * gap * 0.8)::int
from generate_series(0, 39) as k, habits where k < n;
create index visits_member_id_visited_on_idx on scoring.visits (member_id, visited_on);
set session_replication_role = origin;
drop table habits;
"""


@contextmanager
def scratch_server() -> Iterator[tuple[str, str]]:
    """Start a migrated server with Dagster's storage, and delete it at the end.

    Yields its URLs for the administrator and for the role that deployments use.
    """
    folder = Path(tempfile.mkdtemp(prefix="bench-scoring-"))
    folder.chmod(0o755)  # the server may have to run as another user
    server = EmbeddedServer(folder / "state")
    try:
        server.start()
        url = server.url()
        apply_migrations(url)
        writer = as_writer(url)
        shutil.copyfile(ROOT / "dagster.yaml", folder / "dagster.yaml")
        os.environ["DAGSTER_HOME"] = str(folder)
        os.environ["DAGSTER_POSTGRES_URL"] = with_search_path(writer, "dagster")
        yield url, writer
    finally:
        server.delete()
        shutil.rmtree(folder, ignore_errors=True)


def fill(url: str, members: int) -> int:
    """Empty and refill the source tables. Returns the number of visits."""
    text = _DATA.replace("%%", "%").format(members=members, newest=NEWEST)
    with psycopg.connect(url, autocommit=True) as conn:
        conn.execute(
            "truncate scoring.gyms, scoring.commitment_scores, scoring.churn_risk_scores, scoring.coach_actions,"
            " scoring.chain_days, backfill.runs, backfill.batches cascade"
        )
        for each in text.split(";\n"):
            if each.strip():
                conn.execute(each)  # type: ignore[call-overload]
        for table in ("members", "visits", "coaches", "member_coaches"):
            conn.execute(f"vacuum (analyze) scoring.{table}")  # type: ignore[call-overload]
        row = conn.execute("select count(*) from scoring.visits").fetchone()
    assert row is not None
    return row[0]


def bare_query(url: str, day: date) -> float:
    """Seconds that psql takes for the feature query over all members, with its rows transferred and discarded."""
    sql = STATEMENTS["features"].replace("m.id = any(%(members)s::text[])", "true")
    sql = re.sub(r"%\(day\)s::date", f"date '{day}'", sql).replace("%(due_only)s::boolean", "true")
    command = [psql(), url, "-XAtq", "-c", "set jit = off", "-c", f"copy ({sql}) to stdout"]
    began = time.monotonic()
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    return time.monotonic() - began


def run(url: str, chosen: list[dg.AssetsDefinition], first: date, last: date) -> float:
    """Seconds of the steps of one run of these assets over a range of days."""
    postgres = PostgresResource(url=url)
    resources = {
        "postgres": postgres,
        "scoring_settings": settings_from(),
        "io_manager": PostgresIOManager(postgres=postgres),
    }
    span = {
        "dagster/asset_partition_range_start": first.isoformat(),
        "dagster/asset_partition_range_end": last.isoformat(),
    }
    single = first == last
    with dg.DagsterInstance.get() as instance:
        result = dg.materialize(
            chosen,
            instance=instance,
            resources=resources,
            partition_key=first.isoformat() if single else None,
            tags=None if single else span,
        )
    return sum(e.step_success_data.duration_ms for e in result.all_events if e.is_step_success) / 1000


def chain(url: str, day: date) -> list[float]:
    """Seconds of each asset, with one run per asset as in the chain."""
    return [run(url, [asset], day, day) for asset in CHAIN]


def warm_up(url: str, writer: str) -> None:
    """Score one small day to load Python modules, which a production run does before its step starts."""
    fill(url, 50)
    chain(writer, NEWEST)


def one_day(url: str, writer: str, members: int) -> dict[str, float]:
    """The chain for a new day and for the same day again, compared with the plain query before and after them."""
    visits = fill(url, members)
    print(f"{members:,} members, {visits:,} visits, one day", flush=True)
    bare_query(writer, NEWEST)  # warms the cache for both
    bare = bare_query(writer, NEWEST)
    seconds = chain(writer, NEWEST)
    again = chain(writer, NEWEST)
    bare = (bare + bare_query(writer, NEWEST)) / 2
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    rows = [("plain feature query", bare), *zip((a.key.path[-1] for a in CHAIN), seconds, strict=True)]
    rows += [("the whole chain", sum(seconds)), ("the same day again", sum(again))]
    for name, value in rows:
        print(f"{name:22} {value:8.1f} s   {value / bare:5.2f} ×", flush=True)
    print(f"peak memory {peak:,.0f} MB", flush=True)
    return {
        "ratio_to_sql": round(sum(seconds) / bare, 3),
        "ratio_again": round(sum(again) / bare, 3),
        "seconds_bare": round(bare, 2),
        "seconds_chain": round(sum(seconds), 2),
        "seconds_again": round(sum(again), 2),
        "peak_mb": round(peak),
        "members": members,
        "visits": visits,
    }


def many_days(url: str, writer: str, members: int, days: int) -> dict[str, float]:
    """Seconds of one backfill over a range of days."""
    visits = fill(url, members)
    seconds = run(writer, CHAIN, NEWEST - timedelta(days=days - 1), NEWEST)
    print(f"{days} days of {members:,} members, {visits:,} visits: {seconds:.1f} s", flush=True)
    return {"seconds_year": round(seconds, 1), "year_members": members, "year_days": days}


def main(arguments: list[str]) -> None:
    options = _options().parse_args(arguments)
    figures: dict[str, float] = {}
    with scratch_server() as (url, writer):
        warm_up(url, writer)
        if options.members:
            figures |= one_day(url, writer, options.members)
        if options.days:
            figures |= many_days(url, writer, options.year_members, options.days)
    print(json.dumps(figures))


def _options() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.scoring", description=__doc__)
    parser.add_argument(
        "--members", type=int, default=1_000_000, help="members for the single day; 0 skips it"
    )
    parser.add_argument("--days", type=int, default=365, help="days of the backfill; 0 skips it")
    parser.add_argument("--year-members", type=int, default=10_000, help="members of the backfill")
    return parser


if __name__ == "__main__":
    main(sys.argv[1:])
