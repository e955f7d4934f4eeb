"""Workbooks are read as the user sees them. Unusable cells are reported, hostile workbooks refused."""

import datetime as dt
import io
import tracemalloc
import zipfile

import pytest

from dagster_backfills.domains.kintell.file import archive
from dagster_backfills.domains.kintell.file import workbook as reading
from dagster_backfills.domains.kintell.file.cells import cell_text
from dagster_backfills.domains.kintell.file.dialect import ReadOptions, UnpacksTooFar, to_plain_csv
from dagster_backfills.domains.kintell.file.files import FileError, open_file
from dagster_backfills.domains.kintell.file.register import register
from dagster_backfills.domains.kintell.importing.importer import Options, run_import
from dagster_backfills.domains.kintell.rows.dry_run import validate
from dagster_backfills.errors import UserError
from dagster_backfills_tests.domains.kintell.sample import COLUMNS, add_users, row, state
from dagster_backfills_tests.domains.kintell.workbooks import package, workbook, xml_workbook

SHOWN = [
    (None, "General", ""),
    ("  text ", "General", "  text "),
    ("a_x000D_\nb_x005F_x000D_", "General", "a\r\nb_x000D_"),
    (True, "General", "TRUE"),
    (12, "General", "12"),
    (12.0, "0.00", "12"),
    (0.1 + 0.2, "General", "0.3"),
    (44.6, "0", "44.6"),  # what a format rounds away is not lost
    (1234, "#,##0", "1234"),
    (60, '0 "min"', "60"),
    (123456789012345.0, "0.00E+00", "123456789012345"),
    (42, "00000", "00042"),
    (42, '"KS-"0000', "KS-0042"),
    (7, '"KS-"#', "KS-7"),
    (1234567, "000-0000", "123-4567"),
    (12345678, "[Red]000\\-0000;-0", "1234-5678"),
    (-7, "0000", "-7"),
    (1234567890123456, "General", "1234567890123456"),  # all 16 digits are there: no spreadsheet wrote it
    (1234567890123450, "General", "#ROUNDED! 1234567890123450"),
    (1.2e18, "General", "#ROUNDED! 1200000000000000000"),
    (float("inf"), "General", "inf"),
    (dt.datetime(2024, 1, 15), "dd.mm.yyyy", "2024-01-15"),
    (dt.datetime(2024, 1, 15), 'dd.mm.yyyy hh:mm "Uhr"', "2024-01-15T00:00:00"),
    (dt.datetime(2024, 1, 15, 10, 30), "dd.mm.yyyy", "2024-01-15T10:30:00"),
    (dt.date(2024, 1, 15), "General", "2024-01-15"),
    (dt.time(10, 30), "hh:mm", "10:30:00"),
    (dt.timedelta(hours=30), "[h]:mm", "1 day, 6:00:00"),
    ("#REF!", "General", "#REF!"),
]


@pytest.mark.parametrize(("value", "number_format", "text"), SHOWN)
def test_a_cell_becomes_the_text_that_the_user_sees(value, number_format, text):
    assert cell_text(value, number_format) == text


@pytest.fixture
def put(tmp_path, monkeypatch):
    monkeypatch.setenv("BACKFILLS_HOME", str(tmp_path / "home"))

    def write(data, name="book.xlsx"):
        (tmp_path / name).write_bytes(data)
        return open_file(str(tmp_path / name), [str(tmp_path)])

    return write


@pytest.fixture
def bring(put, conn, database_url, tmp_path):
    add_users(conn)

    def run(data, *, read_as=None, **options):
        job = register(conn, put(data).url, [str(tmp_path)], read_as=read_as).job
        return run_import(database_url, job, Options(batch_rows=2, **options), [str(tmp_path)])

    return run


def plain(source, **options):
    with to_plain_csv(source, ReadOptions(**options)).open() as handle:
        return handle.read().decode()


def texts(*rows):
    return [list(COLUMNS), *(list(each.values()) for each in rows)]


def errors(conn):
    return [(error[0], error[1]) for error in state(conn)["errors"]]


def test_a_workbook_is_imported_shown_and_resumed_from_its_checkpoint(
    bring, put, conn, database_url, tmp_path
):
    rows = [row(n, rating="5" if n % 2 else "9", feedback_text='two\nlines, "quoted"') for n in range(20)]
    job = bring(workbook(texts(*rows)), max_errors=3)
    assert (job.status, job.processed_rows, job.recognized) == ("failed", 8, "workbook, sheet Sessions")
    done = run_import(database_url, job.id, Options(batch_rows=3), [str(tmp_path)])
    assert (done.status, done.inserted_rows, done.failed_rows) == ("completed", 10, 10)
    assert {s[8] for s in state(conn)["sessions"]} == {'two\nlines, "quoted"'}
    verdict = validate(conn, done.file_url, [str(tmp_path)])
    assert (verdict.recognized, verdict.duplicates, verdict.failed) == ("workbook, sheet Sessions", 10, 10)
    assert register(conn, done.file_url, [str(tmp_path)], once=True).job == job.id


def test_numbers_and_dates_are_imported_and_empty_rows_skipped(bring, conn):
    typed = [7, *list(row(1).values())[1:4], dt.datetime(2024, 1, 15, 10), 45.0, 5, None, "b1"]
    job = bring(workbook([COLUMNS, typed, [], ["", " "], []], formats={1: "00000", 5: "dd.mm.yyyy"}))
    assert (job.total_rows, job.failed_rows) == (1, 0)
    ((id_, *_, start, _, minutes, rating, feedback, level),) = state(conn)["sessions"]
    assert (id_, minutes, rating, feedback, level) == ("00007", 45, 5, None, "B1")
    assert start == dt.datetime(2024, 1, 15, 10, tzinfo=dt.UTC)


def test_uncomputed_and_rounded_cells_are_rejected_and_noted(bring, conn):
    given = [list(row(n).values()) for n in range(5)]
    given[0][0], given[1][0], given[2][7], given[3][6] = "#REF!", 1.25e18, "=1+1", "=1+1"
    job = bring(workbook([COLUMNS, *given]))
    assert errors(conn) == [
        (1, "Invalid session_id: #REF!"),
        (2, "Invalid session_id: #ROUNDED! 1250000000000000000"),
        (3, "Invalid feedback text: #NOT CALCULATED!"),
        (4, "Invalid rating: #NOT CALCULATED!"),
    ]
    assert job.recognized.endswith("1 number of more than 15 digits, rounded by the spreadsheet (first: A3)")


def test_a_formula_is_read_as_its_last_value(put):
    cells = '<c r="A1" t="str"><f>UPPER("x")</f><v>X</v></c><c r="B1"><f>6*7</f><v>42</v></c>'
    empty = '<c r="C1" t="str"><f>""</f><v></v></c><c r="D1" t="e"><f>1/0</f><v>#DIV/0!</v></c>'
    assert plain(put(package(f"<sheetData><row>{cells}{empty}</row></sheetData>"))) == "X,42,,#DIV/0!\r\n"


def test_the_named_sheet_is_read_if_several_have_data(put, conn, tmp_path):
    add_users(conn)
    data = workbook(texts(row(1)), more={"Other": texts(row(2), row(3)), "Blank": []})
    source = put(data)
    with pytest.raises(FileError, match=r"has 2 sheets with data: Sessions, Other. Choose one: --sheet"):
        to_plain_csv(source)
    with pytest.raises(FileError, match=r"has no sheet Third. It has: Sessions, Other, Blank"):
        to_plain_csv(source, ReadOptions(sheet="Third"))
    first, other = (
        register(conn, source.url, [str(tmp_path)], read_as=ReadOptions(sheet=name))
        for name in ("sessions", "Other")
    )
    totals = conn.execute(
        "select id, sheet, total_rows from kintell.backfill_jobs order by created_at"
    ).fetchall()
    assert totals == [(first.job, "Sessions", 1), (other.job, "Other", 2)]
    assert "s-000001" in plain(put(workbook(texts(row(1)), more={"Other": [["x"]]}, hidden=True)))


def test_a_sheet_of_a_csv_or_an_encoding_of_a_workbook_is_refused(put):
    with pytest.raises(FileError, match="is not a workbook: it has no sheet S"):
        to_plain_csv(put(b"a,b\n"), ReadOptions(sheet="S"))
    with pytest.raises(FileError, match="is a workbook: it has no encoding"):
        to_plain_csv(put(workbook([["a"]])), ReadOptions(encoding="UTF-8"))


def test_an_unfinished_job_refuses_other_options(put, conn, tmp_path):
    add_users(conn)
    source = put(",".join(COLUMNS).encode() + b"\n", "plain.csv")
    register(conn, source.url, [str(tmp_path)])
    with pytest.raises(
        UserError, match="imports this content with the file as CSV with commas, UTF-8 and is pending"
    ):
        register(conn, source.url, [str(tmp_path)], read_as=ReadOptions(encoding="windows-1252"))


def of_parts(data, **replaced):
    """The workbook with some parts replaced, by the end of their names."""
    out = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(data)) as old, zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as new:
        for name in old.namelist():
            change = next((text for end, text in replaced.items() if name.endswith(f"{end}.xml")), None)
            new.writestr(name, old.read(name) if change is None else change)
    return out.getvalue()


DTD = '<!DOCTYPE x [<!ENTITY a "aaaaaaaaaa"><!ENTITY b "&a;&a;&a;&a;&a;">]>'
GOOD = xml_workbook(texts(row(1)), shared=True)
HOSTILE = {
    "entities in the sheet": (
        package("<sheetData/>", before=DTD),
        "contains XML that no spreadsheet program writes",
    ),
    "entities in another encoding": (
        of_parts(GOOD, sheet1=f'<?xml version="1.0" encoding="utf-16"?>{DTD}<a/>'.encode("utf-16")),
        "contains XML that no spreadsheet program writes",
    ),
    "entities in the texts": (of_parts(GOOD, sharedStrings=DTD + "<sst/>"), "no spreadsheet program writes"),
    "entities in the book": (of_parts(GOOD, workbook=DTD + "<workbook/>"), "no spreadsheet program writes"),
    "a text of many megabytes": (
        package("<sheetData><row><c t='str'><v>" + "x" * 6_000_000),
        "a cell of more than 4 MB",
    ),
    "a row without end": (package("<sheetData><row>" + "<c/>" * 140_000), "a row has too many cells"),
    "a text without end": (
        of_parts(GOOD, sharedStrings="<sst><si>" + "<r/>" * 140_000),
        "has too many parts",
    ),
    "a row far down": (
        package('<sheetData><row r="99999999999"><c/></row></sheetData>'),
        "no cell beyond row",
    ),
    "a column far out": (package('<sheetData><row><c r="ZZZ1"/></row></sheetData>'), "no cell beyond row"),
    "a text that is not there": (
        package('<sheetData><row><c t="s"><v>7</v></c></row></sheetData>'),
        "can't be read as a workbook: IndexError",
    ),
    "cut XML": (package("<sheetData><row>"), "can't be read as a workbook: ParseError"),
    "no sheet in it": (of_parts(GOOD, workbook="<a/>"), "has no sheets that can be read"),
    "no cells": (workbook([]), "is empty: none of its sheets has data"),
    "strict": (
        package("<sheetData/>", namespace="http://purl.oclc.org/ooxml/spreadsheetml/main"),
        "has no cells that can be read. Save it as Excel Workbook .*not as Strict Open XML",
    ),
    "a strict sheet": (
        of_parts(GOOD, sheet1='<worksheet xmlns="http://purl.oclc.org/ooxml/spreadsheetml/main"/>'),
        "sheet Sessions, has no cells that can be read",
    ),
    "cut zip": (GOOD[:-30], "is a damaged workbook or zip archive"),
}


@pytest.mark.parametrize(("data", "message"), HOSTILE.values(), ids=HOSTILE)
def test_a_hostile_or_damaged_workbook_is_refused_with_a_clear_message(put, data, message):
    with pytest.raises(FileError, match=message):
        to_plain_csv(put(data))


@pytest.mark.parametrize(
    ("module", "limit"),
    [(reading, "MAX_SHEET_BYTES"), (reading, "MAX_TEXTS_BYTES"), (archive, "MAX_PART_BYTES")],
)
def test_a_part_that_unpacks_to_more_than_its_limit_is_refused(put, monkeypatch, module, limit):
    monkeypatch.setattr(module, limit, 100)
    with pytest.raises(FileError, match="has more than 0 MB when unpacked"):
        to_plain_csv(put(GOOD))


def test_a_text_that_a_small_workbook_repeats_endlessly_is_refused(put):
    data = xml_workbook([["x" * 30_000]] * 3_000, shared=True)
    assert len(data) < 100_000
    with pytest.raises(UnpacksTooFar, match="unpacks to more than 67,108,864 bytes"):
        to_plain_csv(put(data))


def test_memory_does_not_grow_with_the_rows(put):
    def peak(rows):
        source = put(xml_workbook(["x"] * 3 for _ in range(rows)))
        with reading.open_sheet(source, "") as sheet:
            tracemalloc.start()
            assert sum(1 for _ in sheet.rows()) == rows
            most = tracemalloc.get_traced_memory()[1]
            tracemalloc.stop()
        return most

    peak(10)
    assert peak(8_000) - peak(2_000) < 80_000
