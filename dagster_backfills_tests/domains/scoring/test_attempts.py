"""Which earlier attempts at a day are resumed, so that no day mixes old and new scores."""

import signal
import time
from collections.abc import Callable
from pathlib import Path

import dagster as dg
import pytest
from dagster._core.definitions.job_base import InMemoryJob
from dagster._core.execution.api import execute_run

from dagster_backfills.defs.scoring import assets
from dagster_backfills_tests.domains.scoring.conftest import Gyms, Score, healthy, resources_of, slow_run
from dagster_backfills_tests.domains.scoring.histories import DAY

COMMITMENT, CHURN = "scoring/commitment_scores", "scoring/churn_risk_scores"
STATE = "select outcome, expected, done from scoring.chain_days where asset = %s and day = %s"
BATCHES = "select count(distinct units_upto) from backfill.batches where asset = %s"
WORKED = "select sum(units) from backfill.batches where asset = %s"
TABLES = {
    "commitment_scores": assets.commitment_scores,
    "churn_risk_scores": assets.churn_risk_scores,
    "coach_actions": assets.coach_actions,
}
IN_TENS = {"batch_members": 10, "max_batch_members": 10, "batch_seconds": 0}

Retry = Callable[..., bool]


@pytest.fixture
def retry(database_url: str, instance: dg.DagsterInstance, gyms: Gyms) -> Retry:
    """Run an asset as Dagster's automatic retry of the run that has the day."""

    def run(asset: dg.AssetsDefinition, automatic: bool = True, **settings: object) -> bool:
        (before,) = gyms.rows(
            "select run_id from scoring.chain_days where asset = %s and day = %s",
            "/".join(asset.key.path), DAY,
        )[0]  # fmt: skip
        definitions = dg.Definitions(
            [asset],
            resources=resources_of(database_url, **settings),
            executor=dg.in_process_executor,
        )
        job = definitions.resolve_implicit_global_asset_job_def()
        tags = {"dagster/partition": DAY.isoformat(), "dagster/is_resume_retry": "true"}
        tags |= {"dagster/retry_number": "1"} if automatic else {}
        again = instance.create_run_for_job(job, tags=tags, parent_run_id=before, root_run_id=before)
        return execute_run(InMemoryJob(job), again, instance).success

    return run


def alike(gyms: Gyms, count: int) -> None:
    """Members who all have the same score."""
    for n in range(count):
        gyms.member(f"m{n:03}", 16, 35, 42, 49, 56, coaches=("c1",))


def fail_at(gyms: Gyms, table: str, member: str) -> None:
    """Cancels the statement at this member, which does not count as the member's failure."""
    gyms.conn.execute(
        "create function public.cancelled() returns trigger language plpgsql as $$ begin"
        " perform pg_cancel_backend(pg_backend_pid()), pg_sleep(10); return new; end $$"
    )
    gyms.conn.execute(
        f"create trigger cancelled before insert or update on scoring.{table} for each row"
        f" when (new.member_id >= '{member}') execute function public.cancelled()"
    )


def mended(gyms: Gyms) -> None:
    gyms.conn.execute("drop function public.cancelled() cascade")


def visits_arrive(gyms: Gyms) -> dict[str, object]:
    gyms.conn.execute("insert into scoring.visits select id, %s from scoring.members", [DAY])
    return {}


def members_change(gyms: Gyms) -> dict[str, object]:
    gyms.conn.execute("update scoring.members set expected_visits_per_week = 0.25")
    return {}


def weights_change(gyms: Gyms) -> dict[str, object]:
    return {"weights": "1,0,0,0"}


SCORES = "select distinct score, weights_version from scoring.commitment_scores where day = %s"


@pytest.mark.parametrize("change", [visits_arrive, members_change, weights_change])
def test_a_failed_day_that_is_run_again_is_scored_from_the_start(
    gyms: Gyms, score: Score, change: Callable[[Gyms], dict[str, object]]
) -> None:
    alike(gyms, 60)
    fail_at(gyms, "commitment_scores", "m040")
    assert not score(assets.commitment_scores, **IN_TENS).success
    old = gyms.rows(SCORES, DAY)
    assert gyms.rows("select count(*) from scoring.commitment_scores") == [(40,)]
    assert gyms.rows(STATE, COMMITMENT, DAY) == [("failed", 60, 40)]
    mended(gyms)
    changed = change(gyms)
    assert score(assets.commitment_scores, **IN_TENS, **changed).success
    assert gyms.rows(STATE, COMMITMENT, DAY) == [("complete", 60, 60)]
    new = gyms.rows(SCORES, DAY)
    assert len(new) == 1
    assert new != old


def test_a_retry_of_churn_risk_starts_from_scratch_if_commitment_was_scored_again(
    gyms: Gyms, score: Score, retry: Retry
) -> None:
    alike(gyms, 60)
    score(assets.commitment_scores)
    fail_at(gyms, "churn_risk_scores", "m040")
    assert not score(assets.churn_risk_scores, **IN_TENS).success
    assert gyms.rows("select count(*) from scoring.churn_risk_scores") == [(40,)]
    mended(gyms)
    visits_arrive(gyms)
    score(assets.commitment_scores)
    assert retry(assets.churn_risk_scores, **IN_TENS)
    assert gyms.rows(STATE, CHURN, DAY) == [("complete", 60, 60)]
    made_from = "select distinct commitment_score from scoring.churn_risk_scores"
    assert gyms.rows(made_from) == gyms.rows("select distinct score from scoring.commitment_scores")


def test_a_retry_with_other_weights_starts_from_scratch(gyms: Gyms, score: Score, retry: Retry) -> None:
    alike(gyms, 60)
    fail_at(gyms, "commitment_scores", "m040")
    score(assets.commitment_scores, **IN_TENS)
    mended(gyms)
    assert retry(assets.commitment_scores, **IN_TENS, weights="0,1,0,0")
    assert [version for _, version in gyms.rows(SCORES, DAY)] == ["0-100-0-0"]


def test_a_manual_re_execution_of_a_failed_run_starts_from_scratch(
    gyms: Gyms, score: Score, retry: Retry
) -> None:
    alike(gyms, 60)
    fail_at(gyms, "commitment_scores", "m040")
    score(assets.commitment_scores, **IN_TENS)
    mended(gyms)
    visits_arrive(gyms)
    assert retry(assets.commitment_scores, automatic=False, **IN_TENS)
    assert len(gyms.rows(SCORES, DAY)) == 1


def test_a_gym_scored_with_other_weights_leaves_the_day_partial(gyms: Gyms, score: Score) -> None:
    gyms.member("a", 16, 35, gym="g1")
    gyms.member("b", 16, 35, gym="g2")
    score(assets.commitment_scores)
    score(assets.commitment_scores, gym="g2")
    assert gyms.rows(STATE, COMMITMENT, DAY)[0][0] == "complete"
    score(assets.commitment_scores, gym="g2", weights="1,0,0,0")
    assert gyms.rows("select outcome, reason from scoring.chain_days") == [
        ("partial", "other gyms were scored with other weights: run the whole day")
    ]
    score(assets.commitment_scores, weights="1,0,0,0")
    assert gyms.rows(STATE, COMMITMENT, DAY)[0][0] == "complete"


@pytest.mark.programs
@pytest.mark.parametrize("table", TABLES)
def test_the_retry_of_a_killed_run_resumes_where_it_stopped(
    gyms: Gyms, score: Score, retry: Retry, database_url: str, project_root: Path, table: str
) -> None:
    healthy(gyms, 12)
    before = list(TABLES)[: list(TABLES).index(table)]
    if before:
        score(*(TABLES[name] for name in before))
    asset = f"scoring/{table}"
    with slow_run(database_url, table, project_root) as process:
        while gyms.rows(BATCHES, asset)[0][0] < 3:
            assert process.poll() is None
            time.sleep(0.05)
        process.send_signal(signal.SIGKILL)
    kept = gyms.rows(f"select xmin::text, member_id from scoring.{table} order by 2")  # noqa: S608
    assert 3 <= len(kept) < 12
    assert gyms.rows(STATE, asset, DAY)[0][0] == "running"
    assert retry(TABLES[table])
    assert gyms.rows(STATE, asset, DAY)[0][0] == "complete"
    rows = gyms.rows(f"select xmin::text, member_id from scoring.{table} order by 2")  # noqa: S608
    assert len(rows) == 12
    assert rows[: len(kept)] == kept
    assert gyms.rows(WORKED, asset) == [(12,)]  # no member was processed twice


@pytest.mark.programs
def test_a_run_that_exceeds_its_maximum_says_so_and_its_retry_does_the_rest(
    gyms: Gyms, retry: Retry, database_url: str, project_root: Path
) -> None:
    """Simulates the interrupt by which `dagster/max_runtime` ends a run."""
    healthy(gyms, 12)
    with slow_run(database_url, "commitment_scores", project_root) as process:
        while gyms.rows(BATCHES, COMMITMENT)[0][0] < 3:
            assert process.poll() is None
            time.sleep(0.05)
        process.send_signal(signal.SIGINT)
        assert process.wait(60) != 0
    kept = gyms.rows("select count(*) from scoring.commitment_scores")[0][0]
    assert 3 <= kept < 12
    assert gyms.rows(STATE, COMMITMENT, DAY) == [("failed", 12, kept)]
    assert retry(assets.commitment_scores)
    assert gyms.rows(STATE, COMMITMENT, DAY) == [("complete", 12, 12)]
    assert gyms.rows(WORKED, COMMITMENT) == [(12,)]
