"""The error workbook: highlighted cells, messages, suggestions, and importing it again."""

import subprocess

import openpyxl
import pytest

from dagster_backfills.domains.kintell.after import error_workbook
from dagster_backfills.domains.kintell.after.error_workbook import (
    closest_users,
    suggest,
    write_error_workbook,
)
from dagster_backfills.domains.kintell.file.register import register
from dagster_backfills.domains.kintell.importing.importer import Options, run_import
from dagster_backfills.domains.kintell.importing.jobs import load_job
from dagster_backfills.domains.kintell.rows.messages import Message, failing_columns, messages
from dagster_backfills.domains.kintell.statements import STATEMENTS
from dagster_backfills_tests.domains.kintell.sample import add_users, csv_text, row

BAD = [
    row(1, session_type="Mentorshp"),
    row(2, participant_email="participant2@exmaple.com"),
    row(3, date="2024-25-12T10:00:00Z"),
    row(4, rating="4/5"),
    row(5, session_id=""),
]


@pytest.fixture
def imported(conn, database_url, tmp_path):
    add_users(conn)

    def run(path):
        job = register(conn, str(path), [str(tmp_path)]).job
        return run_import(database_url, job, Options(batch_rows=10), [str(tmp_path)])

    return run


@pytest.fixture
def workbook(imported, conn, tmp_path):
    """The workbook of a file with five bad rows and one good one."""
    path = tmp_path / "sessions.csv"
    path.write_text(csv_text([row(0), *BAD]))
    book = tmp_path / "errors.xlsx"
    assert write_error_workbook(conn, imported(path), book) == len(BAD)
    return book


def table(path):
    sheet = openpyxl.load_workbook(path).active
    titles, *rows = list(sheet.iter_rows())
    return [{title.value: cell for title, cell in zip(titles, cells, strict=True)} for cells in rows]


def fix(book, to):
    """Do what is suggest, in the cells, as a person would."""
    found = openpyxl.load_workbook(book)
    sheet = found.active
    at = {cell.value: cell.column for cell in sheet[1]}
    for number in range(2, sheet.max_row + 1):
        for guess in filter(None, (sheet.cell(number, at["_error_suggestion"]).value or "").split("; ")):
            name, _, value = guess.partition(": ")
            sheet.cell(number, at[name]).value = value
    found.save(to)


def test_each_failing_cell_is_marked_with_its_message_and_a_suggestion_beside_it(workbook):
    rows = table(workbook)
    marked = [{name for name, cell in r.items() if cell.fill.fill_type == "solid"} for r in rows]
    assert marked == [{"session_type"}, {"participant_email"}, {"date"}, {"rating"}, {"session_id"}]
    assert [r["_error_row"].value for r in rows] == [2, 3, 4, 5, 6]
    assert rows[1]["_error_message"].value == "Participant not found: participant2@exmaple.com"
    assert [r["_error_suggestion"].value for r in rows] == [
        "session_type: Mentorship",
        "participant_email: Participant2@example.com",
        "date: 2024-12-25T10:00:00Z",
        "rating: 4",
        None,
    ]
    assert rows[2]["date"].value == "2024-25-12T10:00:00Z"


def test_corrected_rows_of_the_workbook_are_imported_and_the_others_rejected_again(
    workbook, imported, conn, tmp_path
):
    fix(workbook, tmp_path / "fixed.xlsx")
    done = imported(tmp_path / "fixed.xlsx")
    assert (done.inserted_rows, done.failed_rows, done.total_rows) == (4, 1, 5)
    assert conn.execute("select count(*) from kintell.kintell_sessions").fetchone() == (5,)
    again = tmp_path / "again.xlsx"
    assert write_error_workbook(conn, done, again) == 1
    (left,) = table(again)
    assert list(left).count("_error_message") == 1
    assert left["_error_message"].value == "Missing session_id"


@pytest.mark.e2e
@pytest.mark.parametrize("saved", ["csv", "csv:44,34,76,1,,0,false,true", "csv:59,34,0,1"])
def test_the_workbook_can_be_saved_by_libreoffice_before_it_is_imported(
    workbook, imported, tmp_path, saved, request
):
    """As CSV of its own; in UTF-8, as shown; with semicolons, in the system's encoding."""
    office = next((p for p in ("/usr/bin/soffice", "/usr/bin/libreoffice") if subprocess.run(
        ["test", "-x", p]).returncode == 0), None)  # fmt: skip
    if office is None:
        pytest.skip("LibreOffice is not installed (libreoffice-calc-nogui)")
    fix(workbook, tmp_path / "fixed.xlsx")
    out = tmp_path / "out"
    kind, _, options = saved.partition(":")
    form = f"csv:Text - txt - csv (StarCalc):{options}" if options else kind
    subprocess.run(
        [office, f"-env:UserInstallation=file://{tmp_path.parent}/libreoffice", "--headless", "--convert-to", form,
         "--outdir", str(out), str(tmp_path / "fixed.xlsx")],
        check=True, capture_output=True, timeout=120,
    )  # fmt: skip
    done = imported(out / f"fixed.{kind}")
    assert (done.inserted_rows, done.failed_rows) == (4, 1)


def test_a_formula_in_the_file_stays_text_in_the_workbook(imported, conn, tmp_path):
    path = tmp_path / "sessions.csv"
    path.write_text(csv_text([row(1, session_type="=1+1", feedback_text='=cmd|"/c calc"!A1')]))
    write_error_workbook(conn, imported(path), tmp_path / "errors.xlsx")
    (found,) = table(tmp_path / "errors.xlsx")
    assert (found["session_type"].value, found["session_type"].data_type) == ("=1+1", "s")
    assert found["feedback_text"].data_type == "s"


@pytest.mark.parametrize(
    "text",
    [
        "bell \a and tab\t.",
        "_x0041_",
        "a\r\nb\rc\nd",
        "x" * 32_768,
        "no \uffff character",
        "00012",
        "1E+15",
        "ñ 🙂",
    ],
    ids=["bell", "escape", "line ends", "long", "no character", "zeros", "exponent", "letters"],
)
def test_no_text_is_altered_by_the_workbook(imported, conn, tmp_path, text):
    path = tmp_path / "sessions.csv"
    path.write_text(csv_text([row(1, rating="9", feedback_text=text)]), newline="")
    write_error_workbook(conn, imported(path), tmp_path / "errors.xlsx")
    (found,) = table(tmp_path / "errors.xlsx")
    assert found["feedback_text"].number_format == "@"
    book = openpyxl.load_workbook(tmp_path / "errors.xlsx")
    book.active.cell(2, 7).value = "5"
    book.save(tmp_path / "fixed.xlsx")
    done = imported(tmp_path / "fixed.xlsx")
    sessions = conn.execute("select feedback_text from kintell.kintell_sessions").fetchall()
    if len(text) < 100 and "\uffff" not in text:
        assert (done.inserted_rows, sessions) == (1, [(text,)])
        return
    assert (done.failed_rows, sessions) == (1, [])
    assert "A workbook can't hold this row: fix it in the CSV" in found["_error_message"].value
    assert found["_error_raw"].value.startswith("s-000001,Mentorship,")


@pytest.mark.parametrize(
    ("message", "fields", "guess"),
    [
        ("Invalid date format: 25/12/2024", {"date": "25/12/2024"}, {"date": "2024-12-25"}),
        ("Invalid date format: 05/06/2024", {"date": "05/06/2024"}, {}),
        ("Invalid date format: yesterday", {"date": "yesterday"}, {}),
        ("Invalid language level: B 1", {"language_level": "B 1"}, {"language_level": "B1"}),
        ("Invalid duration: 45 min", {"duration_min": "45 min"}, {"duration_min": "45"}),
        ("Invalid duration: 0", {"duration_min": "0"}, {}),
        ("Unknown session type: Coffee", {"session_type": "Coffee"}, {}),
        (
            "Invalid email format: ada(at)x.org",
            {"participant_email": "ada(at)x.org", "volunteer_email": "bob@x.org"},
            {"participant_email": "ada@x.org"},
        ),
    ],
)
def test_a_suggestion_is_made_only_if_it_is_unambiguous(message, fields, guess):
    assert suggest(message, fields, {}) == guess


def test_an_address_message_is_attributed_to_the_column_with_the_quoted_value():
    fields = {"participant_email": "ada@x.org", "volunteer_email": "Nobody"}
    assert list(failing_columns("Invalid email format: Nobody; Invalid rating: 9", fields)) == [
        "volunteer_email",
        "rating",
    ]


def test_a_semicolon_in_a_value_does_not_split_a_message():
    fields = {"participant_email": "ada@x.org", "volunteer_email": "bob; carol"}
    message = "Invalid email format: bob; carol; Invalid rating: 9"
    assert list(failing_columns(message, fields)) == ["volunteer_email", "rating"]


def test_suggested_users_have_the_same_domain_or_name(conn):
    add_users(conn)
    # To the last of these, seven come as close as each other.
    wanted = [
        "volunter3@example.com",
        "participant1@example.org",
        "nobody@else.net",
        "participant9@example.com",
    ]
    found = closest_users(conn, wanted)
    assert found == {
        "volunter3@example.com": "Volunteer3@example.com",
        "participant1@example.org": "Participant1@example.com",
    }


def test_an_address_is_compared_with_a_limited_number_of_similar_users(conn):
    conn.execute(
        "insert into kintell.users (email, name, role)"
        " select 'mar' || n || '@example.com', 'Mar', 'participant' from generate_series(1, 300) as n"
    )
    (near,) = [emails for _, emails in STATEMENTS.near_users(conn, emails=["mar@example.com"])]
    assert (len(near), max(map(len, near))) == (50, len("mar50@example.com"))


def test_users_are_looked_up_for_a_limited_number_of_unknown_addresses(workbook, conn, tmp_path, monkeypatch):
    monkeypatch.setattr(error_workbook, "MAX_LOOKED_UP", 0)
    job = conn.execute("select id from kintell.backfill_jobs").fetchone()[0]
    write_error_workbook(conn, load_job(conn, job), tmp_path / "again.xlsx")
    assert [r["_error_suggestion"].value for r in table(tmp_path / "again.xlsx")][:2] == [
        "session_type: Mentorship",
        None,
    ]


@pytest.mark.parametrize("message", Message)
def test_every_message_is_attributed_to_its_column_and_split_from_the_next(message):
    text = message.with_value("x")
    assert failing_columns(text, {message.column: "x"}) == {message.column: message}
    assert messages(f"{text}; {Message.RATING.with_value('9')}") == [text, "Invalid rating: 9"]
    assert messages(f"Invalid rating: 9; {text}") == ["Invalid rating: 9", text]
