"""The text of errors that users can fix."""

import pytest

from dagster_backfills.errors import UserError


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
