"""Files of common programs: nearly all are recognized, none is misread."""

import shutil
import subprocess
import sys
from collections import Counter

import polars as pl
import pytest

from dagster_backfills.domains.kintell.file.columns import KNOWN
from dagster_backfills.domains.kintell.file.dialect import to_plain_csv
from dagster_backfills.domains.kintell.file.files import FileError, open_file
from dagster_backfills.domains.kintell.file.header import read_header
from dagster_backfills.domains.kintell.file.reader import read_blocks
from dagster_backfills.domains.kintell.file.register import register
from dagster_backfills.domains.kintell.importing.importer import Options, run_import
from dagster_backfills.domains.kintell.rows.rules import error_message, validate_values
from dagster_backfills_tests.domains.kintell.corpus import Made, corpus, truth
from dagster_backfills_tests.domains.kintell.sample import state

WHOLE_WAY = (
    "Excel de",
    "Excel Unicode text",
    "pandas",
    "sqlcmd, dashes and footer",
    "Excel, typed cells",
    "OpenXML SDK",
    "Excel, rich texts",
)


@pytest.fixture(scope="module")
def files():
    return list(corpus())


@pytest.fixture
def place(tmp_path, monkeypatch):
    monkeypatch.setenv("BACKFILLS_HOME", str(tmp_path / "home"))

    def put(made):
        path = tmp_path / made.name
        path.write_bytes(made.data)
        return open_file(str(path), [str(tmp_path)])

    return put


def read(source):
    """The rows that the reader takes for rows, and those among them that no rule refuses."""
    plain = to_plain_csv(source)
    header = read_header(plain)
    frame = pl.concat(block.frame() for block in read_blocks(plain, header, header.data_offset, 1, 1000))
    bad = validate_values(frame).select(error_message()).to_series().is_not_null()
    rows = [list(row) for row in frame.select(KNOWN).iter_rows()]
    return rows, [row for row, is_bad in zip(rows, bad, strict=True) if not is_bad]


def outcome(made, source):
    expected = [[text.strip() for text in row] for row in made.rows]
    try:
        rows, good = read(source)
    except FileError as error:
        assert error.message.startswith(made.name)
        assert error.hint
        return "refused"
    if any(row not in expected for row in good):
        return "misread"
    return "recognized" if [row for row in rows if row in expected] == expected else "in part"


def test_at_least_19_in_20_are_recognized_and_none_is_misread(place, files):
    found = [(made, outcome(made, place(made))) for made in files]
    table = Counter((made.program, how) for made, how in found)
    counts = Counter(how for _, how in found)
    lines = [f"{program:34} {how:12} {files:4}" for (program, how), files in sorted(table.items())]
    sys.stdout.write("\n".join([*lines, f"{len(found)} files: {dict(counts)}", ""]))
    assert len(found) >= 200
    assert [made.program for made, how in found if how == "misread"] == []
    assert [made.program for made, how in found if (how == "refused") != made.refused] == []
    assert counts["recognized"] >= 0.95 * len(found)
    assert counts["recognized"] + counts["refused"] == len(found)


@pytest.mark.parametrize("program", WHOLE_WAY)
def test_a_file_of_each_program_is_imported(place, files, conn, database_url, tmp_path, program):
    made: Made = next(made for made in files if made.program == program)
    for n in range(len(made.rows)):
        for role in ("participant", "volunteer"):
            conn.execute(
                "insert into kintell.users (email, name, role) values (%s, 'x', %s)",
                [f"{role}{n}@example.com", role],
            )
    source = place(made)
    job = register(conn, source.url, [str(tmp_path)]).job
    done = run_import(database_url, job, Options(batch_rows=2), [str(tmp_path)])
    expected = sorted(
        (row[0], int(row[5]), int(row[6]) if row[6] else None, row[7].strip() or None) for row in made.rows
    )
    assert done.status == "completed"
    assert sorted((s[0], s[6], s[7], s[8]) for s in state(conn)["sessions"]) == expected
    assert len(expected) == len(truth())


LIBREOFFICE = {
    "xlsx": "recognized",
    "csv:Text - txt - csv (StarCalc):59,34,76": "recognized",
    "csv:Text - txt - csv (StarCalc):44,34,76": "recognized",
    "xls": r"is an old workbook \(.xls\)",
    "ods": "is an OpenDocument spreadsheet",
    "html": "is a web page",
    "pdf": "is a PDF",
}


@pytest.mark.e2e
@pytest.mark.skipif(not shutil.which("soffice"), reason="LibreOffice is not installed")
def test_files_written_by_libreoffice_are_recognized_or_refused_by_name(place, files, tmp_path):
    made = next(made for made in files if made.program == "Excel, ids with zeros")
    place(made)
    for form, expected in LIBREOFFICE.items():
        profile = f"-env:UserInstallation=file://{tmp_path.parent}/libreoffice"
        command = ["soffice", profile, "--headless", "--convert-to", form, "--outdir", tmp_path / "out"]
        subprocess.run([*command, tmp_path / made.name], check=True, capture_output=True, timeout=120)
        ending = form.partition(":")[0]
        source = open_file(str(tmp_path / "out" / f"any.{ending}"), [str(tmp_path)])
        if expected != "recognized":
            with pytest.raises(FileError, match=expected):
                to_plain_csv(source)
        elif ending == "xlsx":
            assert read(source)[0] == [[text.strip() for text in each] for each in made.rows]
        else:
            assert [each[0] for each in read(source)[0]] == [each[0] for each in made.rows]
