"""The three history assets on real Postgres: which rows are written, and what a second run changes."""

from datetime import date, timedelta
from fractions import Fraction

import psycopg
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from dagster_backfills.defs.scoring import assets
from dagster_backfills.domains.scoring.features import COLUMNS, read_frame
from dagster_backfills.domains.scoring.statements import STATEMENTS
from dagster_backfills.samples.scoring import ScoringSize, load_sample
from dagster_backfills_tests.domains.scoring import reference
from dagster_backfills_tests.domains.scoring.conftest import Gyms, Score, check_results
from dagster_backfills_tests.domains.scoring.histories import DAY, features, members


def commitments(gyms: Gyms, day: date = DAY) -> dict[str, int]:
    return dict(gyms.rows("select member_id, score from scoring.commitment_scores where day = %s", day))


@settings(max_examples=12, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(population=st.lists(members(), min_size=1, max_size=6))
def test_the_feature_query_counts_what_plain_python_counts(
    conn: psycopg.Connection, population: list[reference.Member]
) -> None:
    with conn.transaction(force_rollback=True):
        gyms = Gyms(conn)
        for number, member in enumerate(population):
            gyms.member(
                f"m{number}",
                *((DAY - v).days for v in member.visits),
                joined=(DAY - member.joined).days,
                per_week=None if member.per_week is None else float(member.per_week),
            )
        names = [f"m{n}" for n in range(len(population))]
        frame = read_frame(conn, "features", DAY, names, due_only=False).sort_values(
            "member_id", ignore_index=True
        )
    expected = features(population)
    assert frame.to_dict("records") == expected[list(frame.columns)].to_dict("records")


def test_frames_have_the_columns_of_their_statements(conn: psycopg.Connection) -> None:
    for name in ("features", "churn_inputs", "action_inputs"):
        cursor = conn.execute(STATEMENTS[name], {"day": DAY, "members": [], "due_only": True})
        assert [c.name for c in cursor.description or ()] == list(COLUMNS[name])


@pytest.mark.parametrize("name", ["churn_inputs", "action_inputs"])
def test_a_batchs_members_are_read_once_even_if_the_day_has_not_been_analyzed(
    conn: psycopg.Connection, name: str
) -> None:
    binds = {"day": DAY, "members": [f"m{n}" for n in range(1000)], "due_only": True}
    plan = "\n".join(line for (line,) in conn.execute(f"explain {STATEMENTS[name]}", binds))
    assert "hashed SubPlan" in plan


def test_a_day_is_scored_from_end_to_end(gyms: Gyms, score: Score) -> None:
    gyms.member("regular", *range(0, 101, 2), coaches=("c1",))
    gyms.member("falling off", 16, 35, 42, 49, 56, coaches=("c1", "c2"))
    gyms.member("never", coaches=("c1",))
    gyms.member("left", 3, status="left", coaches=("c1",))
    result = score()
    assert result.success
    assert commitments(gyms) == {"regular": 92, "falling off": 15, "never": 0}
    assert gyms.rows("select member_id, level, score from scoring.churn_risk_scores order by 1") == [
        ("falling off", "high", 100),  # 85 · 1.2
        ("never", "high", 85),
        ("regular", "none", 8),
    ]
    assert gyms.rows(
        "select member_id, coach_id, type, priority from scoring.coach_actions order by 1, 2"
    ) == [
        ("falling off", "c1", "contact_member", "high"),
        ("falling off", "c2", "contact_member", "high"),
        ("never", "c1", "contact_member", "high"),
    ]
    row = gyms.rows("select * from scoring.commitment_scores where member_id = 'falling off'")[0]
    assert row[:10] == (DAY, "falling off", 15, 25, 13, 20, 20, row[7], row[8], 16)
    assert (str(row[7]), str(row[8])) == ("0.73", "-0.7")
    assert row[10:18] == (True, True, False, False, False, True, "low", "35-25-25-15")


def test_edge_cases_of_visits_and_joining_give_the_scores_of_the_reference(gyms: Gyms, score: Score) -> None:
    cases = {
        "one": ([0], 400),
        "two a day": ([0, 0], 400),
        "future": ([0, -1], 400),
        "joined after": ([4], 2),
        "joined tomorrow": ([4], -1),
        "none": ([], 10),
    }
    for name, (ago, joined) in cases.items():
        gyms.member(name, *ago, joined=joined)
    assert score().success
    expected = {
        name: reference.commitment(
            reference.Member(DAY - timedelta(days=joined), [DAY - timedelta(days=a) for a in ago]), DAY
        )["score"]
        for name, (ago, joined) in cases.items()
    }
    assert commitments(gyms) == expected


def test_members_who_joined_after_the_day_are_not_scored_for_it(gyms: Gyms, score: Score) -> None:
    gyms.member("later", -3, joined=-1)
    gyms.member("there", 1)
    assert score().success
    assert set(commitments(gyms)) == {"there"}


@pytest.mark.parametrize("batch", [1, 100])
def test_a_score_is_removed_if_the_joining_date_is_corrected_to_a_later_day(
    gyms: Gyms, score: Score, batch: int
) -> None:
    gyms.member("later", joined=3)
    gyms.member("there", 1)
    score(assets.commitment_scores)
    assert set(commitments(gyms)) == {"later", "there"}
    gyms.conn.execute(
        "update scoring.members set joined_date = %s where id = 'later'", [DAY + timedelta(days=2)]
    )
    score(assets.commitment_scores, batch_members=batch, max_batch_members=batch)
    assert set(commitments(gyms)) == {"there"}


@pytest.mark.parametrize("batch_members", [1, 50])
def test_running_a_day_again_changes_nothing_and_makes_no_second_action(
    gyms: Gyms, score: Score, batch_members: int
) -> None:
    gyms.member("a", 16, 35, 42, coaches=("c1", "c2"))
    gyms.member("b", 1, 3, coaches=("c1",))
    gyms.member("never", coaches=("c1",))
    score()
    tables = ("commitment_scores", "churn_risk_scores", "coach_actions")
    before = [gyms.rows(f"select xmin, * from scoring.{t} order by 2, 3") for t in tables]  # noqa: S608
    assert score(batch_members=batch_members, max_batch_members=batch_members).success
    assert [gyms.rows(f"select xmin, * from scoring.{t} order by 2, 3") for t in tables] == before  # noqa: S608


def test_a_day_scored_again_after_a_late_visit_is_rewritten_and_its_action_removed(
    gyms: Gyms, score: Score
) -> None:
    gyms.member("a", *range(20, 101, 2), coaches=("c1",))
    score()
    assert len(gyms.rows("select 1 from scoring.coach_actions")) == 1
    for ago in range(0, 20, 2):
        gyms.visit("a", ago)
    score()
    assert commitments(gyms)["a"] > 80
    assert gyms.rows("select 1 from scoring.coach_actions") == []


def test_the_member_row_keeps_the_newest_day_when_an_old_one_is_backfilled(gyms: Gyms, score: Score) -> None:
    gyms.member("a", *range(0, 101, 2))
    query = (
        "select commitment_score, commitment_band, commitment_day, churn_risk_score, churn_risk_level,"
        " churn_risk_day from scoring.members"
    )
    score()
    newest = gyms.rows(query)
    assert newest == [(92, "high", DAY, 8, "none", DAY)]
    score(day=DAY - timedelta(days=90))
    assert commitments(gyms, DAY - timedelta(days=90))["a"] != 92
    assert gyms.rows(query) == newest


def test_a_range_of_days_scores_each_as_of_itself_in_one_run(gyms: Gyms, score: Score) -> None:
    ago = list(range(0, 61, 3))
    gyms.member("a", *ago, joined=300, coaches=("c1",))
    gyms.member("new", 2, 5, joined=5)
    first = DAY - timedelta(days=5)
    result = score(day=first, until=DAY)
    assert result.success
    member = reference.Member(DAY - timedelta(days=300), [DAY - timedelta(days=a) for a in ago])
    days = [first + timedelta(days=n) for n in range(6)]
    assert gyms.rows(
        "select day, score from scoring.commitment_scores where member_id = 'a' order by day"
    ) == [(day, reference.commitment(member, day)["score"]) for day in days]
    assert gyms.rows("select min(day) from scoring.commitment_scores where member_id = 'new'") == [
        (DAY - timedelta(days=5),)
    ]
    assert gyms.rows("select distinct commitment_day from scoring.members") == [(DAY,)]
    worked = gyms.rows(
        "select day from scoring.chain_days where asset = 'scoring/coach_actions' order by started_at"
    )
    assert worked == [(day,) for day in days]
    partitions = [e.partition for e in result.asset_materializations_for_node("scoring__commitment_scores")]
    assert sorted(p for p in partitions if p) == [d.isoformat() for d in days]


def test_one_gym_can_be_scored_and_the_rows_of_others_are_kept(gyms: Gyms, score: Score) -> None:
    gyms.member("a", 0, gym="g1")
    gyms.member("b", 0, gym="g2")
    score()
    gyms.visit("a", 1)
    gyms.visit("b", 1)
    before = commitments(gyms)
    assert score(assets.commitment_scores, gym="g2").success
    after = commitments(gyms)
    assert after["a"] == before["a"]
    assert after["b"] != before["b"]


def test_an_unknown_gym_fails_before_anything_is_written(gyms: Gyms, score: Score) -> None:
    gyms.member("a", 0)
    result = score(assets.commitment_scores, gym="nowhere")
    assert not result.success
    error = result.failure_data_for_node("one_gym_commitment_scores").error  # type: ignore[union-attr]
    assert "There is no gym 'nowhere'" in str(error)
    assert commitments(gyms) == {}


@pytest.mark.parametrize("batch_members", [1, 50])
def test_past_scores_of_members_who_left_are_kept(gyms: Gyms, score: Score, batch_members: int) -> None:
    gyms.member("a", 16, 30, coaches=("c1",))
    gyms.member("b", 16, 30, coaches=("c1",))
    score()
    gyms.conn.execute("update scoring.members set status = 'left' where id = 'b'")
    assert score(batch_members=batch_members, max_batch_members=batch_members).success
    for table in ("commitment_scores", "churn_risk_scores", "coach_actions"):
        assert gyms.rows(f"select member_id from scoring.{table} order by 1") == [("a",), ("b",)]  # noqa: S608


@pytest.mark.parametrize("batch_members", [1, 50])
def test_members_who_have_left_and_members_of_other_gyms_are_excluded(
    gyms: Gyms, score: Score, batch_members: int
) -> None:
    for name, gym in (("a", "g1"), ("b", "g1"), ("c", "g2")):
        gyms.member(name, 16, 30, coaches=(f"c of {gym}",), gym=gym)
    score(assets.commitment_scores)
    gyms.conn.execute("update scoring.members set status = 'left' where id = 'b'")
    sizes = {"batch_members": batch_members, "max_batch_members": batch_members}
    assert score(assets.churn_risk_scores, gym="g1", **sizes).success
    assert gyms.rows("select member_id from scoring.churn_risk_scores") == [("a",)]
    assert score(assets.churn_risk_scores).success
    gyms.conn.execute("update scoring.members set status = 'left' where id = 'a'")
    assert score(assets.coach_actions, **sizes).success
    assert gyms.rows("select member_id from scoring.coach_actions") == [("c",)]


def test_deleting_a_member_deletes_its_history(gyms: Gyms, score: Score) -> None:
    gyms.member("a", 16, 30, coaches=("c1",))
    gyms.member("b", 16, 30, coaches=("c1",))
    score(day=DAY - timedelta(days=1), until=DAY)
    gyms.conn.execute("delete from scoring.members where id = 'b'")
    for table in ("commitment_scores", "churn_risk_scores", "coach_actions"):
        assert gyms.rows(f"select distinct member_id from scoring.{table}") == [("a",)]  # noqa: S608


def test_gyms_without_coaches_and_coaches_without_members_are_handled(gyms: Gyms, score: Score) -> None:
    gyms.member("a", 16, 30, gym="without")
    gyms.coach("idle", "other")
    result = score()
    assert result.success
    assert gyms.rows("select 1 from scoring.coach_actions") == []
    coverage = check_results(result)["coach_actions.coach_coverage"]
    assert not coverage.passed
    assert "1 of 1 members at risk have no coach" in (coverage.description or "")


def test_other_weights_are_used_and_recorded(gyms: Gyms, score: Score) -> None:
    gyms.member("a", 16, 35, 42, 49, 56)
    assert score(assets.commitment_scores, weights="1,0,0,0").success
    assert gyms.rows("select score, weights_version from scoring.commitment_scores") == [(18, "100-0-0-0")]


@pytest.mark.parametrize("batch", [1, 7, 1000])
def test_every_batch_size_gives_the_reference_for_the_sample_data(
    gyms: Gyms, score: Score, batch: int
) -> None:
    load_sample(gyms.conn, DAY, ScoringSize(gyms=3, members=24, coaches_per_gym=2))
    result = score(batch_members=batch, max_batch_members=batch, batch_seconds=0)
    assert result.success
    rows = gyms.rows(
        "select m.id, m.joined_date, m.expected_visits_per_week,"
        " coalesce(array_agg(v.visited_on) filter (where v.visited_on is not null), '{}')"
        " from scoring.members as m left join scoring.visits as v on v.member_id = m.id"
        " where m.status = 'active' and coalesce(m.expected_visits_per_week, 1) >= 0 group by m.id"
    )
    expected = {
        name: reference.commitment(
            reference.Member(joined, visits, None if week is None else Fraction(week)), DAY
        )["score"]
        for name, joined, week, visits in rows
    }
    assert commitments(gyms) == expected
