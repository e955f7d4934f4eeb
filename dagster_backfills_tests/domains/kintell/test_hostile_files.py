"""Malformed files: each gives the right row errors or one clear file error, and nothing half written."""

import os
import sys

import pytest

from dagster_backfills.domains.kintell.file.files import FileError, open_file
from dagster_backfills.domains.kintell.file.register import register
from dagster_backfills.domains.kintell.importing.importer import Options, run_import
from dagster_backfills_tests.domains.kintell.sample import COLUMNS, SESSIONS, add_users, csv_text, row, state


@pytest.fixture
def bring(conn, database_url, tmp_path):
    """Import bytes and return the job."""
    add_users(conn)

    def run(data, batch_rows=2):
        path = tmp_path / "hostile.csv"
        path.write_bytes(data)
        job = register(conn, str(path), [str(tmp_path)]).job
        return run_import(database_url, job, Options(batch_rows=batch_rows), [str(tmp_path)])

    return run


def good(*numbers, **changes):
    return csv_text([row(n, **changes) for n in numbers]).encode()


def errors(conn):
    return [(e[0], e[1]) for e in state(conn)["errors"]]


def test_a_byte_order_mark_is_not_part_of_the_header(bring):
    assert bring(b"\xef\xbb\xbf" + good(1, 2)).inserted_rows == 2


@pytest.mark.parametrize("line_break", [b"\r\n", b"\r", b"\n"])
@pytest.mark.parametrize("last", [True, False])
def test_every_kind_of_line_break_ends_a_row(bring, conn, line_break, last):
    data = good(1, 4, 5).replace(b"\n", line_break)
    job = bring(data if last else data.removesuffix(line_break))
    assert (job.inserted_rows, job.failed_rows) == (3, 0)
    assert conn.execute(SESSIONS).fetchall()[1][8] == 'Good, "very" good 4'


def test_embedded_line_breaks_and_quotes_are_kept(bring, conn):
    text = 'She said "hello",\r\nand\n\nwent.'
    assert bring(good(1, feedback_text=text) + good(2).split(b"\n", 1)[1]).inserted_rows == 2
    assert conn.execute(SESSIONS).fetchone()[8] == text


def test_blank_lines_are_not_rows(bring, conn):
    data = good(1) + b"\n  \n\r\n" + good(2, rating="9").split(b"\n", 1)[1] + b"\n\n"
    assert bring(data).total_rows == 2
    assert errors(conn) == [(2, "Invalid rating: 9")]


def test_a_field_of_a_megabyte_is_imported(bring, conn):
    assert bring(good(1, 2, feedback_text="words " * 200_000)).inserted_rows == 2
    assert conn.execute("select max(length(feedback_text)) from kintell.kintell_sessions").fetchone() == (
        1_199_999,
    )


def test_rows_with_nul_or_latin_1_bytes_are_rejected_alone(bring, conn):
    lines = good(1, 2, 3, 4, feedback_text="FEEDBACK").split(b"\n")
    lines[2] = lines[2].replace(b"FEEDBACK", b"a\0b")
    lines[3] = lines[3].replace(b"FEEDBACK", "é".encode("latin-1"))
    job = bring(b"\n".join(lines))
    assert (job.inserted_rows, job.failed_rows) == (2, 2)
    assert errors(conn)[0] == (2, "Row contains a NUL byte")
    assert errors(conn)[1][1].startswith("Undecodable byte 0xe9 at position ")
    assert [e[3] for e in state(conn)["errors"]] == [False, False]


def test_ragged_rows_are_rejected(bring, conn):
    lines = good(1, 2, 3).split(b"\n")
    lines[1] += b",surplus"
    lines[2] = lines[2].rsplit(b",", 1)[0]
    assert bring(b"\n".join(lines)).inserted_rows == 1
    assert errors(conn) == [(1, "Expected 9 columns, found 10"), (2, "Expected 9 columns, found 8")]


def test_an_unterminated_quote_at_the_end_costs_one_row(bring, conn):
    job = bring(good(1, 2) + b's-3,Mentorship,"oops\n' + good(5).split(b"\n", 1)[1])
    assert (job.inserted_rows, job.failed_rows) == (3, 1)
    assert errors(conn) == [(3, "Unterminated quote")]


def test_text_after_a_closing_quote_is_rejected_and_quotes_within_text_are_kept(bring, conn):
    lines = good(1, 2, feedback_text="FEEDBACK").split(b"\n")
    lines[1] = lines[1].replace(b"FEEDBACK", b'"a"b')
    lines[2] = lines[2].replace(b"FEEDBACK", b'5" wide')
    assert bring(b"\n".join(lines)).inserted_rows == 1
    assert errors(conn) == [(1, "Text after a closing quote")]
    assert conn.execute(SESSIONS).fetchone()[8] == '5" wide'


def test_a_formula_is_imported_as_text(bring, conn):
    job = bring(good(1, feedback_text='=HYPERLINK("http://x")') + good(2, rating="=1+1").split(b"\n", 1)[1])
    assert (job.inserted_rows, errors(conn)) == (1, [(2, "Invalid rating: =1+1")])
    assert conn.execute(SESSIONS).fetchone()[8] == '=HYPERLINK("http://x")'


def test_columns_may_be_in_any_order_with_unknown_ones_between(bring, conn):
    columns = ["x", *reversed(COLUMNS), "y", "x"]
    data = csv_text([{**row(1), "x": "1", "y": "2"}], columns).encode()
    assert bring(data).inserted_rows == 1
    assert conn.execute(SESSIONS).fetchone()[0] == "s-000001"


def test_a_file_with_ten_thousand_columns_is_imported(bring, conn):
    extra = [f"c{i}" for i in range(10_000)]
    data = csv_text([row(1), row(2, rating="9")], [*extra[:5000], *COLUMNS, *extra[5000:]]).encode()
    job = bring(data)
    assert (job.inserted_rows, job.failed_rows) == (1, 1)
    assert len(state(conn)["errors"][0][2]) == 10_009


def test_a_file_with_only_a_header_is_a_completed_import_of_no_rows(bring):
    assert bring(",".join(COLUMNS).encode()).status == "completed"


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "is empty"),
        (b"\n\n", "is empty"),
        (b"session_id,date\n1,2\n", "lacks the required columns session_type, participant_email"),
        (good(1).replace(b"rating", b"date", 1), "has the column date more than once"),
        (b"\0\0\0\0PNG" * 20, "NUL byte"),
        (b"\xff" + good(1), "Undecodable byte 0xff.*CSV UTF-8"),
        (b"x" * 17_000_000, "not a CSV file"),
        (good(1) + b"y" * 17_000_000, "not a CSV file"),
        (b'"session_id' + good(1), "Unterminated quote"),
    ],
    ids=[
        "empty",
        "blank",
        "columns",
        "twice",
        "nul",
        "latin",
        "endless",
        "endless row",
        "header quote",
    ],
)
def test_a_file_that_cannot_be_read_is_one_clear_error(bring, conn, data, message):
    with pytest.raises(FileError, match=message):
        bring(data)
    assert conn.execute("select count(*) from kintell.backfill_jobs").fetchone() == (0,)


def test_files_outside_the_allowed_locations_are_refused(tmp_path):
    inside, outside = tmp_path / "in", tmp_path / "out.csv"
    inside.mkdir()
    outside.write_text("x")
    (inside / "link.csv").symlink_to(outside)
    os.environ.pop("KINTELL_ALLOWED_LOCATIONS", None)
    for place in (outside, inside / ".." / "out.csv", inside / "link.csv", "/etc/passwd", "memory://x.csv"):
        with pytest.raises(FileError, match="not in an allowed location"):
            open_file(str(place), [str(inside)])
    with pytest.raises(FileError, match="does not exist"):
        open_file(str(inside / "none.csv"), [str(inside)])
    with pytest.raises(FileError, match="is a folder"):
        open_file(str(inside), [str(inside)])
    with pytest.raises(FileError, match="can't be opened"):
        open_file("nosuch://x/y.csv", ["nosuch://x"])


def test_a_file_in_an_object_store_is_read_from_there(conn, database_url):
    import fsspec

    add_users(conn)
    store = fsspec.filesystem("memory")
    store.pipe("/kintell-bucket/a.csv", good(*range(50)))
    url, allowed = "memory://kintell-bucket/a.csv", ["memory://kintell-bucket"]
    job = register(conn, url, allowed).job
    assert run_import(database_url, job, Options(batch_rows=7), allowed).inserted_rows == 50
    with pytest.raises(FileError, match="allowed location"):
        open_file("memory://kintell-bucket-2/a.csv", allowed)
    store.rm("/kintell-bucket", recursive=True)


def test_a_store_without_its_package_is_a_clear_error_and_does_not_affect_other_files(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "s3fs", None)
    url = "s3://bucket/a.csv"
    with pytest.raises(FileError, match="a package for it is missing") as caught:
        open_file(url, ["s3://bucket"])
    assert "s3fs" in caught.value.hint
    (tmp_path / "a.csv").write_bytes(good(1))
    assert open_file(str(tmp_path / "a.csv"), ["s3://bucket", str(tmp_path)]).size > 0
