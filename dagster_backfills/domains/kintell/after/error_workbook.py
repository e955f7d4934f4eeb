"""The error file of a job as a workbook: failing cells marked, beside them the message and what may have been meant.

Sent back it imports: its columns of ours are left out by whoever reads it. Written a row at a time, whatever its size.
Every cell is text and stays it when it is edited: no program makes a date or a number of it.
"""

import re
import tempfile
from collections.abc import Iterator
from functools import partial
from itertools import islice
from pathlib import Path
from typing import IO, Any

import openpyxl
import psycopg
from openpyxl.cell import WriteOnlyCell
from openpyxl.styles import Font, PatternFill

from dagster_backfills.domains.kintell.after.error_file import rejected_rows
from dagster_backfills.domains.kintell.after.suggestions import close_users, suggested, unknown_addresses
from dagster_backfills.domains.kintell.file.columns import MESSAGE, OURS, RAW, ROW, SUGGESTION
from dagster_backfills.domains.kintell.importing.account import ImportJob
from dagster_backfills.domains.kintell.rows.messages import Reject, blamed
from dagster_backfills.domains.kintell.statements import STATEMENTS
from dagster_backfills.errors import UserError

WORKBOOK = "application/vnd.openxmlformats-officedocument.spreadsheetml.sheet"
MOST_ROWS = 1_048_575  # of a sheet, without its header
MOST_TEXT = 32_767  # of a cell, and what openpyxl cuts it to without a word
NOT_HELD = "A workbook can't hold this row: fix it in the CSV error file"
MOST_LOOKED_UP = 5_000  # addresses: of many more the users are missing, and not their letters
_AT_ONCE = 1_000
# What XML has no place for or changes, which workbooks write as `_x000D_`; and what would be taken for that.
_ESCAPED = re.compile(r"[\x00-\x08\x0b-\x1f]|_(?=x[0-9A-Fa-f]{4}_)")
_NEVER = re.compile("[\ufffe\uffff]")
_MARKED = PatternFill("solid", fgColor="FFF2CC")
_BOLD = Font(bold=True)


def write_error_workbook(conn: psycopg.Connection, job: ImportJob, file: Path | IO[bytes]) -> int:
    """Write the workbook and return the number of its rows. Raises UserError for more than a sheet holds."""
    rows = int(STATEMENTS.count_errors(conn, job=job.id))
    if rows > MOST_ROWS:
        raise UserError(f"{rows:,} rejected rows do not fit a sheet.", "Write them as CSV: -o FILE.csv")
    book = openpyxl.Workbook(write_only=True)
    sheet = book.create_sheet("rejected rows")
    sheet.freeze_panes = "A2"
    header = job.header
    keep = [at for at, name in enumerate(header.names) if name not in OURS]
    titles = [*(header.columns[at] for at in keep), ROW, MESSAGE, SUGGESTION, RAW]
    sheet.append([_cell(sheet, title, font=_BOLD) for title in titles])
    looked_up = 0
    for found in _in_parts(conn, job):
        read = [(row, dict(zip(header.names, row[2], strict=False)) if row[3] else {}) for row in found]
        unknown = {each for (_, message, *_), fields in read for each in unknown_addresses(message, fields)}
        users = close_users(conn, unknown) if looked_up < MOST_LOOKED_UP else {}
        looked_up += len(unknown)
        for (number, message, values, split), fields in read:
            if split and not all(map(_is_held, values)):
                # Whole in `_error_raw`, as a row that can't be split: it can't be imported altered.
                message, values, split = f"{message}; {NOT_HELD}", [header.form.delimiter.join(values)], False
            bad = blamed(message, fields) if split else {}
            cells = [
                _cell(sheet, values[at] if split and at < len(values) else "", bad=header.names[at] in bad)
                for at in keep
            ]
            guesses = "; ".join(
                f"{name}: {value}" for name, value in suggested(message, fields, users).items() if split
            )
            raw = "" if split else values[0]
            sheet.append([*cells, number, *(_cell(sheet, text) for text in (message, guesses, raw))])
    book.save(file)
    return rows


def workbook_in_pieces(conn: psycopg.Connection, job: ImportJob) -> Iterator[bytes]:
    """The workbook for whoever sends it on. It is whole before this returns: what is wrong can still be said."""
    file = tempfile.TemporaryFile()  # noqa: SIM115  (it ends with its reader)
    write_error_workbook(conn, job, file)
    file.seek(0)
    return iter(partial(file.read, 65536), b"")


def _in_parts(conn: psycopg.Connection, job: ImportJob) -> Iterator[list[Reject]]:
    rows = rejected_rows(conn, job.id)
    while part := list(islice(rows, _AT_ONCE)):
        yield part


def _is_held(text: str) -> bool:
    return len(_escaped(text)) <= MOST_TEXT and not _NEVER.search(text)


def _escaped(text: str) -> str:
    return _ESCAPED.sub(lambda found: f"_x{ord(found[0]):04X}_", text)


def _cell(sheet: Any, text: str, *, bad: bool = False, font: Font | None = None) -> Any:
    """A text, as it stands: no number of it, no formula. Of what a cell can't hold the beginning, for people to see."""
    held = _escaped(_NEVER.sub("\N{REPLACEMENT CHARACTER}", text))
    cell = WriteOnlyCell(sheet, held if len(held) <= MOST_TEXT else held[: MOST_TEXT - 1] + "…")
    if cell.value:
        cell.data_type = "s"
    cell.number_format = "@"
    if bad:
        cell.fill = _MARKED
    if font:
        cell.font = font
    return cell
