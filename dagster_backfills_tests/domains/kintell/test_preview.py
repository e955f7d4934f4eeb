"""What a dry run says of sessions that are there already equals what an import does to them."""

import pytest

from dagster_backfills.domains.kintell.file.register import register
from dagster_backfills.domains.kintell.importing.importer import Options, run_import
from dagster_backfills.domains.kintell.rows.dry_run import validate
from dagster_backfills_tests.domains.kintell.sample import COLUMNS, add_users, csv_text, row, state

OLD = [row(n) for n in range(10)]
NEW = [
    *OLD[:4],
    row(4, duration_min="99"),
    row(5, duration_min="98", rating="3"),
    row(6, participant_email="participant1@example.com"),
    row(7, date="2025-01-01"),
    row(8, feedback_text=""),
    row(20),
    row(21, rating="9"),
]


@pytest.fixture
def import_(conn, database_url, tmp_path):
    add_users(conn)

    def run(rows, name, columns=COLUMNS, on_duplicate="skip"):
        path = tmp_path / name
        path.write_text(csv_text(rows, columns))
        found = register(conn, str(path), [str(tmp_path)], on_duplicate=on_duplicate)
        return run_import(database_url, found.job, Options(batch_rows=4), [str(tmp_path)])

    return run


def judged(conn, tmp_path, rows, columns=COLUMNS):
    path = tmp_path / "judged.csv"
    path.write_text(csv_text(rows, columns))
    return validate(conn, str(path), [str(tmp_path)], on_duplicate="update")


def test_it_counts_what_is_new_changed_the_same_and_rejected_and_writes_nothing(import_, conn, tmp_path):
    import_(OLD, "old.csv")
    before = state(conn)
    found = judged(conn, tmp_path, NEW)
    assert (found.total, found.new, found.duplicates, found.changed, found.failed) == (11, 1, 9, 5, 1)
    assert found.changes == {
        "duration_min": 2, "rating": 1, "participant_email": 1, "date": 1, "feedback_text": 1,
    }  # fmt: skip
    assert found.examples["duration_min"] == [["s-000004", "34", "99"], ["s-000005", "35", "98"]]
    ((_, was, becomes),) = found.examples["participant_email"]
    assert (was.lower(), becomes.lower()) == ("participant6@example.com", "participant1@example.com")
    assert found.examples["feedback_text"] == [["s-000008", 'Good, "very" good 8', ""]]
    assert state(conn) == before


def test_the_import_then_changes_as_many(import_, conn, tmp_path):
    import_(OLD, "old.csv")
    found = judged(conn, tmp_path, NEW)
    done = import_(NEW, "new.csv", on_duplicate="update")
    assert (done.inserted_rows, done.updated_rows, done.skipped_rows, done.failed_rows) == (
        found.new, found.changed, found.duplicates - found.changed, found.failed,
    )  # fmt: skip
    again = judged(conn, tmp_path, NEW)
    assert (again.new, again.duplicates, again.changed, again.changes) == (0, 10, 0, {})


def test_a_column_that_the_file_does_not_have_is_no_difference(import_, conn, tmp_path):
    import_(OLD, "old.csv")
    few = [name for name in COLUMNS if name not in ("rating", "feedback_text")]
    assert judged(conn, tmp_path, OLD, few).changed == 0
