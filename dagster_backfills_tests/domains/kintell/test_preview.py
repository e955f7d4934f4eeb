"""The preview of a dry run: new, changed, unchanged and rejected rows."""

import pytest

from dagster_backfills.domains.kintell.after.error_file import frequent_errors
from dagster_backfills.domains.kintell.file.register import register
from dagster_backfills.domains.kintell.importing.importer import Options, run_import
from dagster_backfills.domains.kintell.rows.dry_run import validate
from dagster_backfills.domains.kintell.rows.preview import Example, FrequentError
from dagster_backfills_tests.domains.kintell.sample import (
    COLUMNS,
    add_users,
    mixed_rows,
    row,
    state,
    write_csv,
)


@pytest.fixture
def bring(conn, database_url, tmp_path):
    """Import rows."""
    add_users(conn)

    def run(rows, columns=COLUMNS, on_duplicate="skip"):
        path = write_csv(tmp_path / "any.csv", rows, columns)
        job = register(conn, str(path), [str(tmp_path)], on_duplicate=on_duplicate).job
        return run_import(database_url, job, Options(batch_rows=7), [str(tmp_path)])

    return run


@pytest.fixture
def look(conn, tmp_path):
    """Preview rows."""

    def run(rows, columns=COLUMNS, **options):
        return validate(
            conn, str(write_csv(tmp_path / "next.csv", rows, columns)), [str(tmp_path)], **options
        )

    return run


EDITED = {
    "session_type": "Language Connect",
    "participant_email": "PARTICIPANT6@example.com",
    "volunteer_email": "volunteer4@example.com",
    "date": "2025-01-02T03:04:05.5+01:00",
    "duration_min": "999",
    "rating": "4",
    "feedback_text": "Other",
    "language_level": "c2",
}


def test_each_changed_column_is_counted_with_values_before_and_after(bring, look, conn):
    rows = [row(i) for i in range(20)]
    bring(rows)
    before = state(conn)
    rows[2] = row(2, **EDITED)
    rows[7] = row(7, rating="")
    found = look([*rows, *(row(i) for i in range(50, 53)), row(60, rating="9")])
    counts = {"total": 24, "new": 3, "duplicates": 20, "changed": 2, "same": 18, "failed": 1}
    assert {name: found.plain()[name] for name in counts} == counts
    assert {name: change.sessions for name, change in found.changes.items()} == {
        **dict.fromkeys(EDITED, 1),
        "rating": 2,
    }
    assert found.changes["participant_email"].examples == [
        Example(3, "s-000002", "Participant2@example.com", "Participant6@example.com")
    ]
    assert found.changes["date"].examples[0].after == "2025-01-02 02:04:05.5"
    assert found.changes["rating"].examples == [
        Example(3, "s-000002", None, "4"),
        Example(8, "s-000007", "3", None),
    ]
    assert state(conn) == before


@pytest.mark.parametrize("column", EDITED)
def test_an_update_changes_exactly_what_the_preview_counted(bring, look, column):
    rows = [row(i) for i in range(12)]
    bring(rows)
    changed = [row(i, **{column: EDITED[column]}) for i in range(12)]
    found = look(changed, on_duplicate="update")
    assert 0 < found.changed <= 12
    assert set(found.changes) == {column}
    done = bring(changed, on_duplicate="update")
    assert (done.updated_rows, done.skipped_rows) == (found.changed, found.same)
    assert look(changed).same == 12


def test_a_column_that_the_file_lacks_changes_nothing(bring, look):
    bring([row(i) for i in range(12)])
    found = look([row(i) for i in range(12)], COLUMNS[:6])
    assert (found.same, found.changes) == (12, {})


def test_at_most_three_examples_per_column_are_shown(bring, look, monkeypatch):
    bring([row(i) for i in range(50)])
    found = look([row(i, duration_min="7") for i in range(50)])
    assert found.changes["duration_min"].sessions == 50
    assert [each.row for each in found.changes["duration_min"].examples] == [1, 2, 3]


def test_with_error_no_duplicate_counts_as_changed(bring, look):
    bring([row(i) for i in range(5)])
    found = look([row(i, rating="1") for i in range(8)], on_duplicate="error")
    assert (found.new, found.failed, found.changed, found.duplicates) == (3, 5, 0, 0)


def test_the_most_frequent_errors_are_the_same_in_the_preview_and_after_the_import(bring, look, conn):
    bring([])
    rows = [row(1), row(2, rating="9; Or so"), row(3, rating="6", duration_min="x"), row(4, session_id="")]
    expected = [
        FrequentError("Invalid rating", 2, 2, "9; Or so", "Invalid rating: 9; Or so"),
        FrequentError("Invalid duration", 1, 3, "x", "Invalid duration: x"),
    ]
    assert look(rows).frequent(2) == expected
    assert frequent_errors(conn, bring(rows).id, 2) == expected
    assert frequent_errors(conn, bring(mixed_rows(100)).id) == look(mixed_rows(100)).frequent(10)
