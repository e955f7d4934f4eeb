"""The plan of scoring: the changes of the next run, by day and table, without side effects."""

import random
from dataclasses import asdict
from datetime import timedelta

import dagster as dg
import psycopg
import pytest

from dagster_backfills.dagster.resource import PostgresResource
from dagster_backfills.defs.scoring.jobs import plan_scoring
from dagster_backfills.domains.scoring.days import day_lock
from dagster_backfills.domains.scoring.plan import plan_days
from dagster_backfills.domains.scoring.settings import ScoringSettings
from dagster_backfills.domains.scoring.tables import CHAIN
from dagster_backfills_tests.domains.scoring.conftest import Gyms, Score, healthy
from dagster_backfills_tests.domains.scoring.histories import DAY

DAYS = [DAY - timedelta(days=n) for n in (2, 1, 0)]
KEYS = [f"{day}" for day in DAYS]
ASSETS = [target.asset for target in CHAIN]
EVERYTHING = (
    "select jsonb_build_array("
    " (select jsonb_agg(to_jsonb(s) order by day, member_id) from scoring.commitment_scores as s),"
    " (select jsonb_agg(to_jsonb(r) order by day, member_id) from scoring.churn_risk_scores as r),"
    " (select jsonb_agg(to_jsonb(a) order by day, member_id, coach_id) from scoring.coach_actions as a),"
    " (select jsonb_agg(to_jsonb(m) order by id) from scoring.members as m),"
    " (select jsonb_agg(to_jsonb(f) order by id) from backfill.failures as f),"
    " (select count(*) from scoring.chain_days), (select count(*) from backfill.runs),"
    " (select count(*) from backfill.batches), (select count(*) from backfill.journal),"
    " (select count(*) from backfill.stale_marks))"
)
ACCOUNT = (
    "select asset, key, sum(rows_inserted), sum(rows_updated), sum(rows_deleted), sum(rows_unchanged)"
    " from backfill.batches cross join unnest(partitions) as key where run_id = %s group by asset, key"
)
REFUSED = (
    "select asset, partition, unit, sqlstate, split_part(message, ' (Failing row', 1)"
    " from backfill.failures where run_id = %s"
)


@pytest.fixture
def plan(database_url: str):
    def planned(keys=KEYS, gym=None, **settings):
        connect = PostgresResource(url=database_url).connect
        return plan_days(connect, keys, ScoringSettings(**settings), gym=gym)

    return planned


def counts_and_failures(report):
    """Counts and failures of a plan."""
    counts = {
        (asset, key): (n.inserted, n.updated, n.deleted, n.unchanged)
        for asset, by_day in report.counts.items()
        for key, n in by_day.items()
    }
    failures = {
        (f.asset, f.partition, f.unit, f.sqlstate, f.message.split(" (Failing row")[0])
        for f in report.failures
    }
    return {key: numbers for key, numbers in counts.items() if any(numbers)}, failures


def done(gyms: Gyms, run_id: str):
    """The same, as recorded by a run."""
    counts = {(asset, key): tuple(map(int, numbers)) for asset, key, *numbers in gyms.rows(ACCOUNT, run_id)}
    return {key: n for key, n in counts.items() if any(n)}, set(gyms.rows(REFUSED, run_id))


def something_happens(gyms: Gyms, chance: random.Random) -> None:
    """Changes a third of the members: a visit, leaving, another or an invalid goal, a removed coach, a later start."""
    for (member,) in gyms.rows("select id from scoring.members order by id"):
        event = chance.randrange(18)
        if event == 0:
            gyms.conn.execute("insert into scoring.visits values (%s, %s)", [member, chance.choice(DAYS)])
        if event == 1:
            gyms.conn.execute("update scoring.members set status = 'cancelled' where id = %s", [member])
        if event == 2:
            gyms.conn.execute(
                "update scoring.members set expected_visits_per_week = 7 where id = %s", [member]
            )
        if event == 3:
            gyms.conn.execute(
                "update scoring.members set expected_visits_per_week = -1 where id = %s", [member]
            )
        if event == 4:
            gyms.conn.execute("delete from scoring.member_coaches where member_id = %s", [member])
        if event == 5:
            gyms.conn.execute("delete from scoring.visits where member_id = %s", [member])
            gyms.conn.execute("update scoring.members set joined_date = %s where id = %s", [DAYS[2], member])


def test_without_concurrent_changes_the_plan_equals_the_next_run(gyms: Gyms, score: Score, plan) -> None:
    """First time, again, and after changes; batches of all sizes; members that fail in any of the tables; one gym."""
    chance = random.Random(327)
    gyms.conn.execute(
        "alter table scoring.churn_risk_scores add check (member_id <> 'm03' or commitment_score < 0);"
        "alter table scoring.coach_actions add check (member_id <> 'm07' or day <> date '2026-06-29')"
    )
    for n in range(10):
        ago = chance.sample(range(-2, 90), 6)
        gym, coaches = chance.choice([("g1", ("c1",)), ("g2", ("c2", "c3"))])
        gyms.member(f"m{n:02}", *ago, gym=gym, coaches=coaches, joined=chance.choice([2, 400]))
    gyms.conn.execute("delete from scoring.visits where member_id = 'm07'")
    seen = set()
    for turn in ("first time", "again", "after a change", "of one gym"):
        if turn in ("after a change", "of one gym"):
            something_happens(gyms, chance)
        settings = {"max_failed_percent": 100, "batch_members": chance.choice([4, 100])}
        gym = "g2" if turn == "of one gym" else None  # because its job is for one day
        before = gyms.rows(EVERYTHING)
        report = plan(KEYS[1:2] if gym else KEYS[1:], gym=gym, **settings)
        assert gyms.rows(EVERYTHING) == before
        result = score(day=DAYS[1], until=DAY, gym=gym or "", **settings)
        planned = counts_and_failures(report)
        assert planned == done(gyms, result.run_id), turn
        assert (turn != "again") or report.changes == 0
        seen |= {name for row in planned[0].values() for name, n in zip("iudn", row, strict=True) if n}
        seen |= {failure[0] for failure in planned[1]}
    assert {"i", "u", "d", "n", "scoring/commitment_scores", "scoring/churn_risk_scores"} <= seen


def test_a_later_table_is_planned_on_the_rows_that_the_earlier_one_would_write(gyms: Gyms, plan) -> None:
    """With one batch for all, and with one member per batch. Each table's rows are among the examples."""
    healthy(gyms, 9)
    gyms.member("a member without a goal", 1, per_week=-1)
    for batch_members in (1, 100):
        report = plan(batch_members=batch_members)
        assert {(asset, report.total(asset).inserted) for asset in ASSETS} == {
            (asset, 27) for asset in ASSETS
        }
        assert list(report.counts) == ASSETS
        assert [(f.partition, f.unit) for f in report.failures] == [
            (key, "a member without a goal") for key in KEYS
        ]
        assert "expected_visits_per_week must be 0 or more" in report.failures[0].message
        assert len(report.examples) == 20
        assert {example.asset for example in report.examples} == set(ASSETS)
        action = next(e for e in report.examples if e.asset == "scoring/coach_actions")
        assert (action.before, (action.after or {})["type"]) == (None, "follow_up")
        assert (report.estimate.runs, report.estimate.low > 0) == (0, True)


def test_a_plan_neither_waits_for_runs_of_the_day_nor_blocks_them(
    gyms: Gyms, score: Score, plan, database_url: str
) -> None:
    healthy(gyms, 3)
    with psycopg.connect(database_url) as other, day_lock(other, ASSETS[0], KEYS[-1], lambda line: None):
        assert plan().changes == 27
    assert gyms.rows("select count(*) from pg_locks where locktype = 'advisory'") == [(0,)]
    assert score().success
    assert plan(KEYS[-1:]).estimate.runs > 0


def test_a_plan_that_is_stopped_leaves_nothing(gyms: Gyms, plan, monkeypatch) -> None:
    healthy(gyms, 3)
    before = gyms.rows(EVERYTHING)

    def stopped(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("dagster_backfills.domains.scoring.action_rules.describe", stopped)
    with pytest.raises(KeyboardInterrupt):
        plan()
    assert gyms.rows(EVERYTHING) == before
    assert gyms.rows(
        "select count(*) from pg_stat_activity where datname = current_database() and state = 'idle in transaction'"
    ) == [(0,)]


def test_the_job_has_the_same_report(gyms: Gyms, plan, instance: dg.DagsterInstance, resources) -> None:
    healthy(gyms, 2)
    gyms.member("no goal", 1, per_week=-1)

    def run(*days: str) -> dg.ExecuteInProcessResult:
        config = {"which": "named", "partitions": list(days)}
        return plan_scoring.execute_in_process(
            run_config=config, instance=instance, resources=resources, raise_on_error=False
        )

    result = run(*KEYS[1:])
    (event,) = [e for e in result.all_node_events if e.event_type_value == "STEP_OUTPUT"]
    output = {name: value.value for name, value in event.step_output_data.metadata.items()}
    report = plan(KEYS[1:])
    assert (output["inserted"], output["failed_units"]) == (12, 2) == (report.changes, len(report.failures))
    assert f"| scoring/coach_actions | {KEYS[1]} | 2 | 0 | 0 | 0 | 0 |" in output["by_partition"]
    assert "no goal" in output["failures"]
    assert asdict(report.total(ASSETS[0]))["failed_units"] == 2
    assert "is not a day" in str(run("tomorrow").failure_data_for_node("plan_scoring_partitions"))
