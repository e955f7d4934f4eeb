"""Ticks of the schedule and sensors at simulated times: which steps start, wait, are held and are released."""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta

import dagster as dg
import pytest

from dagster_backfills.defs.scoring import jobs, sensors
from dagster_backfills_tests.domains.scoring.conftest import ALL, Gyms, resources_of
from dagster_backfills_tests.domains.scoring.histories import DAY

MORNING = datetime(2026, 7, 1, tzinfo=UTC)  # after DAY


@dataclass
class Chain:
    """The code location's part of the chain on the test's database, and its clock."""

    url: str
    instance: dg.DagsterInstance
    set_clock: Callable[[datetime], None]

    def definitions(self) -> dg.Definitions:
        return dg.Definitions(
            assets=ALL,
            jobs=[jobs.commitment_scores_job, jobs.churn_risk_scores_job, jobs.coach_actions_job],
            resources=resources_of(self.url),
        )

    def tick(
        self, sensor: dg.SensorDefinition, hour: int, minute: int = 0
    ) -> tuple[list[dg.RunRequest], str]:
        """The runs that a sensor requests at an hour of the morning, and its skip reason."""
        self.set_clock(MORNING + timedelta(hours=hour, minutes=minute))
        given = resources_of(self.url)
        with dg.build_sensor_context(
            instance=self.instance,
            repository_def=self.definitions().get_repository_def(),
            resources={key: given[key] for key in ("postgres", "scoring_settings")},
        ) as context:
            data = sensor.evaluate_tick(context)
        return list(data.run_requests or []), data.skip_message or ""

    def scheduled(self, hour: int) -> list[dg.RunRequest]:
        """The runs that the schedule requests at an hour of the morning."""
        return scheduled(self.url, MORNING + timedelta(hours=hour))[0]

    def launch(self, job: str, requests: list[dg.RunRequest]) -> bool:
        """Executes the requested runs like the daemon."""
        runs = [
            self.definitions()
            .resolve_job_def(job)
            .execute_in_process(
                partition_key=r.partition_key, instance=self.instance, tags=r.tags, raise_on_error=False
            )
            for r in requests
        ]
        return bool(runs) and all(run.success for run in runs)


@pytest.fixture
def chain(database_url: str, instance: dg.DagsterInstance, monkeypatch: pytest.MonkeyPatch) -> Chain:
    def set_clock(now: datetime) -> None:
        monkeypatch.setattr(sensors, "utc_now", lambda conn: now)

    return Chain(database_url, instance, set_clock)


def scheduled(url: str, at: datetime) -> tuple[list[dg.RunRequest], str]:
    given = resources_of(url)
    repository = dg.Definitions(
        assets=ALL, jobs=[jobs.commitment_scores_job], resources=given
    ).get_repository_def()
    with dg.build_schedule_context(
        scheduled_execution_time=at, repository_def=repository, resources={"postgres": given["postgres"]}
    ) as context:
        data = jobs.daily_scoring_schedule.evaluate_tick(context)
    return list(data.run_requests or []), data.skip_message or ""


def test_the_schedule_at_two_launches_the_previous_day(database_url: str) -> None:
    (request,) = scheduled(database_url, MORNING + timedelta(hours=2))[0]
    assert (request.partition_key, request.run_key) == ("2026-06-30", "scoring/commitment_scores:2026-06-30")
    assert jobs.daily_scoring_schedule.cron_schedule == "0 2 * * *"
    assert jobs.daily_scoring_schedule.execution_timezone == "UTC"
    (request,) = scheduled(database_url, MORNING + timedelta(days=3, hours=2))[0]
    assert request.partition_key == "2026-07-03"


def test_a_schedule_whose_clock_is_ahead_does_not_launch_an_unfinished_day(database_url: str) -> None:
    tomorrow = datetime.now(UTC).replace(hour=2, minute=0) + timedelta(days=1)
    requests, reason = scheduled(database_url, tomorrow)
    assert requests == []
    assert reason.startswith(f"{datetime.now(UTC).date()} has not ended: the database's time is ")


def test_runs_of_the_chain_are_ended_after_ten_minutes_and_not_retried_for_bad_data(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    tags = jobs.run_tags()
    assert tags["dagster/max_runtime"] == "600"
    assert tags["dagster/retry_on_asset_or_op_failure"] == "false"
    monkeypatch.setenv("SCORING_MAX_RUNTIME_SECONDS", "60")
    assert jobs.run_tags()["dagster/max_runtime"] == "60"


def test_the_chain_from_end_to_end_waits_for_each_gate_and_says_so(gyms: Gyms, chain: Chain) -> None:
    gyms.member("a", 16, 35, 42, coaches=("c1",))
    churn, actions = sensors.churn_risk_after_commitment, sensors.coach_actions_after_churn_risk
    assert chain.tick(churn, 3) == (
        [],
        "2026-06-30: waits for scoring/commitment_scores, which has not run for this day",
    )
    assert chain.launch("commitment_scores_job", chain.scheduled(2))
    assert chain.tick(churn, 2, 30) == ([], "2026-06-30: waits for 03:00 UTC of 2026-07-01")
    requests, _ = chain.tick(churn, 3)
    assert [r.partition_key for r in requests] == ["2026-06-30"]
    again, _ = chain.tick(churn, 3, 1)
    assert [r.run_key for r in again] == [r.run_key for r in requests]  # Dagster executes a run key only once
    assert chain.launch("churn_risk_scores_job", requests)
    assert chain.tick(churn, 3, 10) == ([], "scoring/churn_risk_scores is complete up to 2026-06-30.")
    assert chain.tick(actions, 3, 30) == ([], "2026-06-30: waits for 04:00 UTC of 2026-07-01")
    requests, _ = chain.tick(actions, 4)
    assert chain.launch("coach_actions_job", requests)
    assert chain.tick(actions, 5) == ([], "scoring/coach_actions is complete up to 2026-06-30.")
    assert gyms.rows("select member_id, coach_id, type from scoring.coach_actions") == [
        ("a", "c1", "send_campaign")
    ]


def test_a_partial_upstream_holds_the_chain_and_a_repair_releases_it(gyms: Gyms, chain: Chain) -> None:
    gyms.member("a", 1)
    gyms.member("b", 1, per_week=-1)
    churn = sensors.churn_risk_after_commitment
    chain.launch("commitment_scores_job", chain.scheduled(2))
    requests, reason = chain.tick(churn, 3)
    assert requests == []
    assert reason.startswith(
        "2026-06-30: held: scoring/commitment_scores is partial (1 of 2 members failed, more than 1 %), run "
    )
    gyms.conn.execute("update scoring.members set expected_visits_per_week = 1 where id = 'b'")
    chain.launch("commitment_scores_job", chain.scheduled(2))
    requests, _ = chain.tick(churn, 3, 30)
    assert [r.partition_key for r in requests] == ["2026-06-30"]


def test_a_failed_upstream_holds_the_chain_and_a_new_run_releases_it(gyms: Gyms, chain: Chain) -> None:
    gyms.member("a", 16, 35, coaches=("c1",))
    chain.launch("commitment_scores_job", chain.scheduled(2))
    gyms.conn.execute("alter table scoring.churn_risk_scores rename to elsewhere")
    requests, _ = chain.tick(sensors.churn_risk_after_commitment, 3)
    assert not chain.launch("churn_risk_scores_job", requests)
    gyms.conn.execute("alter table scoring.elsewhere rename to churn_risk_scores")
    held, reason = chain.tick(sensors.coach_actions_after_churn_risk, 4)
    assert held == []
    assert (
        "held: scoring/churn_risk_scores is failed (Table scoring.churn_risk_scores does not exist" in reason
    )
    asked, reason = chain.tick(sensors.churn_risk_after_commitment, 4)
    assert asked == []
    assert reason.endswith("fix the cause, then run it again")
    assert chain.launch("churn_risk_scores_job", requests)
    released, _ = chain.tick(sensors.coach_actions_after_churn_risk, 4, 30)
    assert [r.partition_key for r in released] == ["2026-06-30"]


def test_an_upstream_whose_process_died_holds_the_chain(gyms: Gyms, chain: Chain) -> None:
    gyms.conn.execute(
        "insert into scoring.chain_days (asset, day, run_id, root_run_id, outcome)"
        " values ('scoring/commitment_scores', %s, 'gone', 'gone', 'running')",
        [DAY],
    )
    assert chain.tick(sensors.churn_risk_after_commitment, 5) == (
        [],
        "2026-06-30: held: scoring/commitment_scores did not finish, run gone ended as UNKNOWN",
    )


def test_days_missed_during_downtime_are_caught_up(gyms: Gyms, chain: Chain) -> None:
    gyms.member("a", 1)
    chain.launch("commitment_scores_job", [request(DAY - timedelta(days=3))])
    requests, _ = chain.tick(sensors.missed_scoring_days, 9)
    assert [r.partition_key for r in requests] == ["2026-06-28", "2026-06-29", "2026-06-30"]
    assert chain.launch("commitment_scores_job", requests)
    assert chain.tick(sensors.missed_scoring_days, 9, 5) == ([], "No day is missing up to 2026-06-30.")
    caught_up, _ = chain.tick(sensors.churn_risk_after_commitment, 9, 6)
    assert [r.partition_key for r in caught_up] == ["2026-06-27", "2026-06-28", "2026-06-29", "2026-06-30"]


def test_a_day_with_an_unfinished_run_is_not_launched_again(gyms: Gyms, chain: Chain) -> None:
    job = chain.definitions().resolve_job_def("commitment_scores_job")
    chain.instance.create_run_for_job(
        job, tags={"dagster/partition": "2026-06-30"}, status=dg.DagsterRunStatus.STARTED
    )
    assert chain.tick(sensors.missed_scoring_days, 9)[0] == []


@pytest.mark.parametrize("entered", [True, False])
def test_a_day_whose_run_was_killed_is_launched_again_with_a_new_run_key(
    gyms: Gyms, chain: Chain, entered: bool
) -> None:
    gyms.member("a", 1)
    job = chain.definitions().resolve_job_def("commitment_scores_job")
    killed = chain.instance.create_run_for_job(
        job, tags={"dagster/partition": "2026-06-30"}, status=dg.DagsterRunStatus.FAILURE
    )
    if entered:
        gyms.conn.execute(
            "insert into scoring.chain_days (asset, day, run_id, root_run_id, outcome)"
            " values ('scoring/commitment_scores', %s, %s, %s, 'running')",
            [DAY, killed.run_id, killed.run_id],
        )
    (again,), _ = chain.tick(sensors.missed_scoring_days, 9)
    assert again.partition_key == "2026-06-30"
    assert str(again.run_key).endswith(f":after {killed.run_id}")
    assert chain.launch("commitment_scores_job", [again])
    assert chain.tick(sensors.missed_scoring_days, 9, 5) == ([], "No day is missing up to 2026-06-30.")


def request(day: date) -> dg.RunRequest:
    return dg.RunRequest(partition_key=day.isoformat())
