"""The error file of a job as a workbook: failing cells marked, beside them the message and what may have been meant.

Sent back it imports: its columns of ours are left out by whoever reads it. Written a row at a time, whatever its size.
"""

import tempfile
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import openpyxl
import psycopg
from openpyxl.cell import WriteOnlyCell
from openpyxl.cell.cell import ILLEGAL_CHARACTERS_RE
from openpyxl.styles import Font, PatternFill

from dagster_backfills.domains.kintell.after.error_file import RejectedRow
from dagster_backfills.domains.kintell.after.suggestions import (
    blamed,
    close_users,
    suggested,
    unknown_addresses,
)
from dagster_backfills.domains.kintell.file.columns import MESSAGE, OURS, RAW, ROW, SUGGESTION
from dagster_backfills.domains.kintell.importing.account import ImportJob
from dagster_backfills.domains.kintell.statements import statements
from dagster_backfills.errors import UserError

WORKBOOK = "application/vnd.openxmlformats-officedocument.spreadsheetml.sheet"
MOST_ROWS = 1_048_575  # of a sheet, without its header
_AT_ONCE = 1_000
_MARKED = PatternFill("solid", fgColor="FFF2CC")
_BOLD = Font(bold=True)


def write_error_workbook(conn: psycopg.Connection, job: ImportJob, path: Path) -> int:
    """Write the workbook and return the number of its rows. Raises UserError for more than a sheet holds."""
    rows = int(statements().count_errors(conn, job=job.id))
    if rows > MOST_ROWS:
        raise UserError(f"{rows:,} rejected rows do not fit a sheet.", "Write them as CSV: -o FILE.csv")
    book = openpyxl.Workbook(write_only=True)
    sheet = book.create_sheet("rejected rows")
    sheet.freeze_panes = "A2"
    header = job.header
    keep = [at for at, name in enumerate(header.names) if name not in OURS]
    titles = [*(header.columns[at] for at in keep), ROW, MESSAGE, SUGGESTION, RAW]
    sheet.append([_cell(sheet, title, font=_BOLD) for title in titles])
    for found in _in_parts(conn, job):
        read = [(row, dict(zip(header.names, row[2], strict=False)) if row[3] else {}) for row in found]
        users = close_users(
            conn, [each for (_, message, *_), fields in read for each in unknown_addresses(message, fields)]
        )
        for (number, message, values, split), fields in read:
            bad = blamed(message, fields) if split else []
            cells = [
                _cell(sheet, values[at] if split and at < len(values) else "", bad=header.names[at] in bad)
                for at in keep
            ]
            guesses = "; ".join(
                f"{name}: {value}" for name, value in suggested(message, fields, users).items()
            )
            raw = "" if split else values[0]
            sheet.append([*cells, number, *(_cell(sheet, text) for text in (message, guesses, raw))])
    book.save(path)
    return rows


def workbook_in_pieces(conn: psycopg.Connection, job: ImportJob) -> Iterator[bytes]:
    """The workbook for whoever sends it on. It is whole before this returns: what is wrong can still be said."""
    with ExitStack() as kept:
        file = kept.enter_context(tempfile.NamedTemporaryFile(suffix=".xlsx"))
        write_error_workbook(conn, job, Path(file.name))
        kept.pop_all()
    return _pieces(file)


def _pieces(file: Any) -> Iterator[bytes]:
    with file:
        while piece := file.read(65536):
            yield piece


def _in_parts(conn: psycopg.Connection, job: ImportJob) -> Iterator[list[RejectedRow]]:
    with conn.transaction(), conn.cursor(name="kintell_error_rows") as cursor:
        cursor.execute(statements().errors.sql, {"job": job.id})
        while part := cursor.fetchmany(_AT_ONCE):
            yield part


def _cell(sheet: Any, text: str, *, bad: bool = False, font: Font | None = None) -> Any:
    """A text, as it stands: no number of it, no formula, and nothing that a workbook can't hold."""
    cell = WriteOnlyCell(sheet, ILLEGAL_CHARACTERS_RE.sub("\N{REPLACEMENT CHARACTER}", text))
    if cell.value:
        cell.data_type = "s"
    if bad:
        cell.fill = _MARKED
    if font:
        cell.font = font
    return cell
