"""A member whose goal is NaN fails alone."""

from dagster_backfills_tests.domains.scoring.conftest import Gyms, Score


def test_a_member_whose_goal_is_not_a_number_is_in_the_ledger_and_the_others_are_scored(
    gyms: Gyms, score: Score
) -> None:
    for number in range(10):
        gyms.member(f"m{number}", 2, 9, 30)
    gyms.member("nan", 2, 9, 30, per_week=float("nan"))
    assert score(max_failed_percent=50).success
    scored = gyms.rows("select member_id from scoring.commitment_scores order by 1")
    assert scored == [(f"m{number}",) for number in range(10)]
    assert gyms.rows("select distinct unit from backfill.failures where resolved_at is null") == [("nan",)]
