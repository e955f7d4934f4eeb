"""The cycle of a user: import, correct the rejected rows in LibreOffice, import again, until none is left."""

import shutil
import subprocess
from pathlib import Path

import pytest
from openpyxl import load_workbook

from dagster_backfills.domains.kintell.after.error_file import write_error_file
from dagster_backfills.domains.kintell.after.error_workbook import write_error_workbook
from dagster_backfills.domains.kintell.file.files import FileError
from dagster_backfills.domains.kintell.file.register import register
from dagster_backfills.domains.kintell.importing.importer import Options, run_import
from dagster_backfills_tests.domains.kintell.sample import COLUMNS, SESSIONS, add_users, csv_text, row

SOFFICE = shutil.which("soffice")
needs_soffice = pytest.mark.skipif(
    SOFFICE is None, reason="LibreOffice (libreoffice-calc-nogui) is not installed"
)
# Filters of LibreOffice: delimiter, quote, encoding (76 is UTF-8, 65535 is UTF-16).
COMMAS, SEMICOLONS, UTF_16 = (
    f"csv:Text - txt - csv (StarCalc):{form},1" for form in ("44,34,76", "59,34,76", "9,34,65535")
)
# What its dialog has chosen for a file with a byte-order mark, all delimiters among it. Without a dialog it takes every
# file for Windows-1252.
UTF_8 = "CSV:44/59/9,34,76,1"
MENDED = [
    row(1, feedback_text='She said "fine"; and\nthen, left'),
    row(2, session_type="Mentorship", date="2024-03-25"),
    row(3),
    row(4, duration_min="60", rating="4", feedback_text="ñandú 🙂, 1/2"),
    row(5, language_level="B1"),
    row(6),
    row(7),
]
# What only a cell that is text keeps.
TOUCHY = [row(8, session_id="00012"), row(9, session_id="1234567890123456789", feedback_text="=1+1\nb")]
WRONG = {
    "s-000002": {"session_type": "Mentoring", "date": "2024-25-03"},
    "s-000003": {"participant_email": "participant3@exmaple.com"},
    "s-000004": {"duration_min": "60 min"},
    "s-000005": {"language_level": "B 1"},
    "s-000006": {"volunteer_email": "volunteer1@example.con"},
    "00012": {"rating": "9"},
    "1234567890123456789": {"date": "soon"},
}
LATER = "s-000005"  # mended in the second round


@pytest.fixture
def soffice(tmp_path):
    """Open a file in LibreOffice and save it in another format; returns the new one. All tests have one profile."""

    def convert(path: Path, to: str, opened_as: str = "") -> Path:
        out = path.parent / f"saved-{path.stem}"
        profile = f"-env:UserInstallation=file://{tmp_path.parent}/libreoffice"
        command = [SOFFICE, profile, "--headless", "--convert-to", to, "--outdir", out, path]
        command += [f"--infilter={opened_as}"] if opened_as else []
        subprocess.run(command, check=True, capture_output=True, timeout=300)
        return out / f"{path.stem}.{to.partition(':')[0]}"

    return convert


@pytest.fixture
def bring(conn, database_url, tmp_path):
    add_users(conn)

    def run(path):
        job = register(conn, str(path), [str(tmp_path)]).job
        return run_import(database_url, job, Options(batch_rows=4), [str(tmp_path)])

    return run


@pytest.fixture
def first(bring, conn, tmp_path):
    """The first import; one of its rows can't be split."""

    def run(mended):
        lines = csv_text([{**each, **WRONG.get(each["session_id"], {})} for each in mended])
        broken = csv_text([row(7)]).split("\n")[1]
        path = tmp_path / "sessions.csv"
        path.write_text(lines.replace(broken, broken + ",surplus"), newline="")
        return bring(path)

    return run


def mend(path: Path, mended: list[dict[str, str]], *, all_of_it: bool) -> None:
    """Write the right values into the sheet's failing rows, as a person does; with not all of it, one is left."""
    book = load_workbook(path)
    sheet = book.active
    at = {cell.value: place for place, cell in enumerate(sheet[1])}
    right = {each["session_id"]: each for each in mended}
    for line in sheet.iter_rows(min_row=2):
        own = line[at["session_id"]].value or "s-000007"
        for name in COLUMNS if own == "s-000007" else WRONG.get(str(own), ()):
            if all_of_it or own != LATER:
                line[at[name]].value = right[str(own)][name]
                line[at[name]].data_type = "s"
    book.save(path)


def sessions(conn):
    return [(each[0], *each[1:]) for each in conn.execute(SESSIONS).fetchall()]


def expected(conn, bring, mended, tmp_path):
    """The sessions that the mended file gives by itself."""
    conn.execute("truncate kintell.backfill_jobs, kintell.kintell_sessions, kintell.event_outbox cascade")
    path = tmp_path / "mended.csv"
    path.write_text(csv_text(mended), newline="")
    assert bring(path).failed_rows == 0
    return sessions(conn)


def go_round(conn, first, bring, mended, tmp_path, write, save):
    """Two rounds: what was mended in the first is imported, what was not is rejected again and comes in the second."""
    job = first(mended)
    wrong = sum(each["session_id"] in WRONG for each in mended) + 1
    assert (job.status, job.inserted_rows, job.failed_rows) == ("completed", len(mended) - wrong, wrong)
    second = bring(save(write(job, "first"), all_of_it=False))
    assert (second.status, second.inserted_rows, second.failed_rows) == ("completed", wrong - 1, 1)
    third = bring(save(write(second, "second"), all_of_it=True))
    assert (third.status, third.inserted_rows, third.failed_rows) == ("completed", 1, 0)
    assert sessions(conn) == expected(conn, bring, mended, tmp_path)


@needs_soffice
@pytest.mark.parametrize("form", [COMMAS, SEMICOLONS, UTF_16], ids=["commas", "semicolons", "UTF-16"])
def test_the_csv_error_file_corrected_in_libreoffice_can_be_imported(
    conn, first, bring, soffice, tmp_path, form
):
    def write(job, name):
        path = tmp_path / f"{name}.csv"
        write_error_file(conn, job.id, str(path))
        return path

    def save(path, *, all_of_it):
        opened = soffice(path, "xlsx", UTF_8)
        mend(opened, MENDED, all_of_it=all_of_it)
        return soffice(opened, form)

    go_round(conn, first, bring, MENDED, tmp_path, write, save)


@needs_soffice
def test_the_csv_opened_in_the_wrong_encoding_is_refused_and_not_imported_garbled(
    conn, first, bring, soffice, tmp_path
):
    job = first(MENDED)
    path = tmp_path / "rejected.csv"
    write_error_file(conn, job.id, str(path))
    with pytest.raises(FileError, match="lacks the required column session_id"):
        bring(soffice(soffice(path, "xlsx"), COMMAS))


@pytest.fixture
def workbook(conn, tmp_path):
    def write(job, name):
        path = tmp_path / f"{name}.xlsx"
        write_error_workbook(conn, job, path)
        return path

    return write


@needs_soffice
@pytest.mark.parametrize("form", [COMMAS, SEMICOLONS, UTF_16], ids=["commas", "semicolons", "UTF-16"])
def test_the_error_workbook_corrected_and_saved_as_csv_in_libreoffice_can_be_imported(
    conn, first, bring, soffice, tmp_path, workbook, form
):
    def save(path, *, all_of_it):
        mend(path, MENDED + TOUCHY, all_of_it=all_of_it)
        return soffice(path, form)

    go_round(conn, first, bring, MENDED + TOUCHY, tmp_path, workbook, save)


@needs_soffice
@pytest.mark.parametrize("through_libreoffice", [False, True])
def test_the_corrected_error_workbook_can_be_imported_as_it_is(
    conn, first, bring, soffice, tmp_path, workbook, through_libreoffice
):
    def save(path, *, all_of_it):
        mend(path, MENDED + TOUCHY, all_of_it=all_of_it)
        return soffice(path, "xlsx") if through_libreoffice else path

    go_round(conn, first, bring, MENDED + TOUCHY, tmp_path, workbook, save)
