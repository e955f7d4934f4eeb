"""A run that exceeds `dagster/max_runtime` under a real daemon: it is terminated, and the next one resumes."""

from collections.abc import Iterator
from datetime import UTC, date, datetime, timedelta

import psycopg
import pytest

from dagster_backfills_tests.e2e.chain import ASSETS, worked_before
from dagster_backfills_tests.e2e.conftest import Stack, StackFactory
from dagster_backfills_tests.e2e.graphql import launch_job, messages, runs, wait_for

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(600)]

ASSET = ASSETS[0]
TODAY = datetime.now(UTC).date()
DAY = TODAY - timedelta(days=30)
MEMBERS = 20
# One member per batch, each takes a second while `crawl` has a row. Twenty in all exceed a run's maximum of twelve
# seconds. A retry has the same maximum, and needs few.
SLOW = {
    "SCORING_BATCH_MEMBERS": "1",
    "SCORING_MAX_BATCH_MEMBERS": "1",
    "SCORING_BATCH_SECONDS": "0",
    "SCORING_CATCH_UP_DAYS": "1",
}
_CRAWL = """
create table public.crawl as select 1 as seconds;
create function public.crawl() returns trigger language plpgsql as $$ begin
  perform pg_sleep(seconds) from public.crawl;
  return new;
end $$;
create trigger crawl before insert on scoring.commitment_scores for each row execute function public.crawl();
"""


def _fill(conn: psycopg.Connection) -> None:
    """Inserts members, and marks earlier days as scored."""
    conn.execute("insert into scoring.gyms values ('g', 'Gym')")
    conn.execute(
        "insert into scoring.members (id, gym_id, first_name, last_name, status, joined_date)"
        " select 'm' || n, 'g', 'First', 'Last', 'active', %s from generate_series(1, %s) as n",
        [date(2020, 1, 1), MEMBERS],
    )
    worked_before(conn, [TODAY - timedelta(days=n) for n in (1, 2, 3)])
    conn.execute(_CRAWL)


@pytest.fixture(scope="module")
def slow(start_stack: StackFactory) -> Iterator[Stack]:
    with start_stack(fill=_fill, variables=SLOW) as started:
        yield started


def test_run_monitoring_ends_a_run_that_takes_too_long_and_the_next_run_does_the_rest(slow: Stack) -> None:
    tags = {"dagster/partition": DAY.isoformat(), "dagster/max_runtime": "12"}
    first = launch_job(slow.webserver, "commitment_scores_job", tags)
    ended = wait_for(
        "the end of the run",
        lambda: next((r["status"] for r in runs(slow.webserver, runIds=[first]) if _over(r["status"])), None),
    )
    assert ended == "FAILURE"
    for text in ("exceeding maximum runtime of 12 seconds", f"[JOB FAILURE] {ASSET} {DAY}"):
        wait_for(text, lambda text=text: any(text in line for line in messages(slow.webserver, first)))
    with slow.connect() as conn:
        [(kept,)] = conn.execute(
            "select sum(units) from backfill.batches where run_id = %s", [first]
        ).fetchall()
        assert 0 < kept < MEMBERS
        conn.execute("delete from public.crawl")
        state = "select outcome from scoring.chain_days where asset = %s and day = %s"
        wait_for(
            "the retry that run retries launch",
            lambda: conn.execute(state, [ASSET, DAY]).fetchone() == ("complete",),
            timeout=200,
        )
        worked = conn.execute(
            "select count(distinct run_id) > 1, sum(units) from backfill.batches"
        ).fetchone()
        scored = conn.execute("select count(*) from scoring.commitment_scores").fetchone()
    assert worked == (True, MEMBERS)  # no member was processed twice
    assert scored == (MEMBERS,)


def _over(status: str) -> bool:
    return status in {"SUCCESS", "FAILURE", "CANCELED"}
