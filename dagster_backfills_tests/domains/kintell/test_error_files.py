"""Importing an error file: uncorrected rows are rejected again, and no row is altered or lost."""

import csv
import io

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from dagster_backfills.domains.kintell.after.error_file import stream_errors
from dagster_backfills.domains.kintell.file.dialect import ReadOptions
from dagster_backfills.domains.kintell.file.register import register
from dagster_backfills.domains.kintell.importing.importer import Options, run_import
from dagster_backfills.domains.kintell.rows.dry_run import validate
from dagster_backfills_tests.domains.kintell.sample import COLUMNS, add_users, csv_text, row, state

HEADER = ",".join(COLUMNS).encode()
GOOD = csv_text([row(1)]).encode().split(b"\n")[1]
# Rows that can't be split or decoded, and rows that break a rule.
BROKEN = st.sampled_from(
    [
        GOOD + b", but please never call me before nine",
        GOOD.rsplit(b",", 1)[0],
        GOOD.replace(b"Mentorship", b'"Mentor"ship'),
        GOOD.replace(b"Mentorship", "Méntorship".encode("latin-1")),
        GOOD.replace(b"Mentorship", b"Men\0torship"),
        GOOD.replace(b"Mentorship", b'"Mentorship'),
        b"Total,1",
        b'"one ""quoted"" field; \\xe9"',
    ]
)
REJECTED = st.sampled_from(
    [
        GOOD.replace(b"Mentorship", b"Coffee"),
        GOOD.replace(b"participant", "jürgen".encode()),
        GOOD.replace(b"s-000001", b" "),
    ]
)


@pytest.fixture
def bring(conn, database_url, tmp_path):
    add_users(conn)

    def run(data):
        path = tmp_path / "any.csv"
        path.write_bytes(data)
        job = register(conn, str(path), [str(tmp_path)], read_as=ReadOptions(encoding="UTF-8")).job
        done = run_import(database_url, job, Options(batch_rows=3), [str(tmp_path)])
        return done, "".join(stream_errors(conn, done))

    return run


def rows_of(text, delimiter=","):
    return list(csv.DictReader(io.StringIO(text, newline=""), delimiter=delimiter))


@settings(max_examples=8, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.lists(BROKEN | REJECTED, max_size=6),
    st.sampled_from([b"\n", b"\r\n", b"\r"]),
    st.sampled_from([b",", b";"]),
)
def test_an_unchanged_error_file_is_rejected_again_and_gives_the_same_error_file(
    bring, conn, lines, end, delimiter
):
    conn.execute("truncate kintell.backfill_jobs, kintell.kintell_sessions, kintell.event_outbox cascade")
    data = end.join([HEADER, *lines, b""])
    first, text = bring(data.replace(b",", delimiter))
    again, text_again = bring(text.encode())
    assert (first.inserted_rows, again.inserted_rows, state(conn)["sessions"]) == (0, 0, [])
    # The file itself, and nothing of it different: neither the messages nor the text of any row.
    rows, rows_again = (rows_of(each, delimiter.decode()) for each in (text, text_again))
    for n, each in enumerate(rows, 1):
        each["_error_row"] = str(n)
    assert rows_again == rows
    assert again.failed_rows == len(rows)


def test_a_row_that_cannot_be_split_is_whole_in_error_raw_and_nowhere_else(bring, conn):
    columns = [*COLUMNS[:7], "language_level", "feedback_text"]
    long = (
        csv_text([row(1, feedback_text="Helpful")], columns).split("\n")[1] + ", but please never before nine"
    )
    _, text = bring((",".join(columns) + "\n" + long + "\n").encode())
    assert rows_of(text) == [
        {
            **dict.fromkeys(columns, ""),
            "_error_row": "1",
            "_error_message": "Expected 9 columns, found 10",
            "_error_raw": long,
        }
    ]
    job, _ = bring(text.encode())
    assert (job.inserted_rows, job.failed_rows) == (0, 1)


def test_undecodable_bytes_are_escaped_in_the_error_file(bring):
    _, text = bring(HEADER + b"\n" + GOOD + b"caf\xe9\n" + GOOD + b"\0\n")
    assert [each["_error_raw"][-4:] for each in rows_of(text)] == ["\\xe9", "\\x00"]
    assert rows_of(text)[0]["_error_raw"] == GOOD.decode() + "caf\\xe9"


def test_a_row_with_its_columns_filled_in_is_imported_and_our_columns_are_ignored(bring, conn):
    _, text = bring(HEADER + b"\n" + GOOD + b",surplus\n")
    fixed = [{**each, **row(1)} for each in rows_of(text)]
    job, _ = bring(csv_text(fixed, list(fixed[0])).encode())
    assert (job.inserted_rows, job.failed_rows) == (1, 0)


def test_a_partly_repaired_row_keeps_its_raw_text_in_the_next_error_file(bring):
    _, text = bring(HEADER + b"\n" + GOOD + b",surplus\n")
    half = [{**each, "session_id": "s-9"} for each in rows_of(text)]
    _, text = bring(csv_text(half, list(half[0])).encode())
    (again,) = rows_of(text)
    assert (again["session_id"], again["_error_raw"]) == ("s-9", GOOD.decode() + ",surplus")
    assert again["_error_message"].startswith("Unknown session type: ; ")


def test_the_dry_run_writes_the_same_error_file(bring, conn, tmp_path):
    data = HEADER + b"\n" + GOOD.replace(b"Mentorship", b"Coffee") + b"\n" + GOOD + b",surplus\n"
    _, text = bring(data)
    (tmp_path / "same.csv").write_bytes(data)
    out = tmp_path / "rejected.csv"
    validate(conn, str(tmp_path / "same.csv"), [str(tmp_path)], error_file=str(out))
    assert out.read_bytes().decode("utf-8-sig") == text
