"""The text of errors that users can fix, and their hints."""

import pytest

from dagster_backfills.errors import UserError, did_you_mean


def test_a_hint_names_similar_names_or_all_names() -> None:
    assert did_you_mean("colour", ["color", "size", "colours"]) == "Did you mean colours, color?"
    assert did_you_mean("xyz", ["color", "size"]) == "There are color, size."
    assert did_you_mean("xyz", []) == "There are none."


def test_a_hint_for_one_of_many_names_is_short_and_compares_only_its_neighbours(monkeypatch) -> None:
    names = [f"cohort-{n:06}" for n in range(100_000)]
    assert did_you_mean("xyz", names).endswith(", cohort-000019 and 99,980 more.")
    compared = []
    monkeypatch.setattr(
        "dagster_backfills.errors.get_close_matches",
        lambda name, some, **_: compared.extend(some) or some[:1],
    )
    assert did_you_mean("cohort-050000x", names).startswith("Did you mean cohort-0")
    assert len(compared) == 1000 and "cohort-050000" in compared


@pytest.mark.parametrize(
    ("message", "hint", "text"),
    [
        ("There is no job 7", "List the jobs.", "There is no job 7. List the jobs."),
        ("There is no job 7.", "List the jobs.", "There is no job 7. List the jobs."),
        ("There is no job 7", "", "There is no job 7"),
    ],
)
def test_a_message_and_its_hint_are_two_sentences(message, hint, text):
    assert str(UserError(message, hint)) == text
