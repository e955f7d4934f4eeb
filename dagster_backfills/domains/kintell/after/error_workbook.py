"""Writes the error file of a job as a workbook: failing cells are highlighted, with the message and a suggestion.

A corrected workbook can be imported as it is, because imports ignore the columns that we add. Rows are written one at a
time. Every cell is formatted as text, so that no program turns an edited value into a date or a number.
"""

import re
import tempfile
from collections.abc import Collection, Iterator, Mapping
from difflib import SequenceMatcher, get_close_matches
from functools import partial
from itertools import islice
from pathlib import Path
from typing import IO, Any

import openpyxl
import psycopg
from openpyxl.cell import WriteOnlyCell
from openpyxl.styles import Font, PatternFill

from dagster_backfills.domains.kintell.after.error_file import rejected_rows
from dagster_backfills.domains.kintell.file.columns import ADDRESSES, MESSAGE, OURS, RAW, ROW, SUGGESTION
from dagster_backfills.domains.kintell.importing.jobs import ImportJob
from dagster_backfills.domains.kintell.rows.messages import Reject, failing_columns
from dagster_backfills.domains.kintell.statements import STATEMENTS
from dagster_backfills.errors import UserError

WORKBOOK = "application/vnd.openxmlformats-officedocument.spreadsheetml.sheet"
MAX_ROWS = 1_048_575  # per sheet, without its header
MAX_TEXT = 32_767  # characters per cell; openpyxl silently truncates longer text
DOES_NOT_FIT = "A workbook can't hold this row: fix it in the CSV error file"
MAX_LOOKED_UP = 5_000  # unknown addresses; with more, users are missing rather than misspelled
CLEARLY_CLOSER = 0.02
_CHUNK_ROWS = 1_000
# Control characters that XML can't hold or changes, written as `_x000D_` in workbooks; and text that looks like that.
_ESCAPED = re.compile(r"[\x00-\x08\x0b-\x1f]|_(?=x[0-9A-Fa-f]{4}_)")
_NOT_XML = re.compile("[\ufffe\uffff]")
_MARKED = PatternFill("solid", fgColor="FFF2CC")
_BOLD = Font(bold=True)


def write_error_workbook(conn: psycopg.Connection, job: ImportJob, file: Path | IO[bytes]) -> int:
    """Write the workbook and return the number of its rows. Raises `UserError` for more rows than a sheet can hold."""
    if job.failed_rows > MAX_ROWS:
        raise UserError(
            f"{job.failed_rows:,} rejected rows do not fit in a sheet.", "Write them as CSV: -o FILE.csv"
        )
    book = openpyxl.Workbook(write_only=True)
    sheet = book.create_sheet("rejected rows")
    sheet.freeze_panes = "A2"
    header = job.header
    keep = [at for at, name in enumerate(header.names) if name not in OURS]
    titles = [*(header.columns[at] for at in keep), ROW, MESSAGE, SUGGESTION, RAW]
    sheet.append([_cell(sheet, title, font=_BOLD) for title in titles])
    looked_up = 0
    for chunk in _in_chunks(conn, job):
        parts = [(row, dict(zip(header.names, row[2], strict=False)) if row[3] else {}) for row in chunk]
        unknown = {each for (_, message, *_), fields in parts for each in unknown_addresses(message, fields)}
        users = closest_users(conn, unknown) if looked_up < MAX_LOOKED_UP else {}
        looked_up += len(unknown)
        for (number, message, values, split), fields in parts:
            if split and not all(map(_fits_cell, values)):
                # Put the whole row in `_error_raw`, like one that can't be split, so that no altered row is imported.
                message, split = f"{message}; {DOES_NOT_FIT}", False
                values = [header.format.delimiter.join(values)]
            bad = failing_columns(message, fields) if split else {}
            cells = [
                _cell(sheet, values[at] if split and at < len(values) else "", bad=header.names[at] in bad)
                for at in keep
            ]
            guesses = "; ".join(
                f"{name}: {value}" for name, value in suggest(message, fields, users).items() if split
            )
            raw = "" if split else values[0]
            sheet.append([*cells, number, *(_cell(sheet, text) for text in (message, guesses, raw))])
    book.save(file)
    return job.failed_rows


def workbook_in_pieces(conn: psycopg.Connection, job: ImportJob) -> Iterator[bytes]:
    """The workbook's bytes, in pieces. It is complete before this returns, so that errors are raised first."""
    file = tempfile.TemporaryFile()  # noqa: SIM115  (it ends with its reader)
    write_error_workbook(conn, job, file)
    file.seek(0)
    return iter(partial(file.read, 65536), b"")


def _in_chunks(conn: psycopg.Connection, job: ImportJob) -> Iterator[list[Reject]]:
    rows = rejected_rows(conn, job.id)
    while chunk := list(islice(rows, _CHUNK_ROWS)):
        yield chunk


def _fits_cell(text: str) -> bool:
    return len(_escape(text)) <= MAX_TEXT and not _NOT_XML.search(text)


def _escape(text: str) -> str:
    return _ESCAPED.sub(lambda match: f"_x{ord(match[0]):04X}_", text)


def _cell(sheet: Any, text: str, *, bad: bool = False, font: Font | None = None) -> Any:
    """A text cell, never a number or formula. Text that a cell can't hold is truncated."""
    held = _escape(_NOT_XML.sub("\N{REPLACEMENT CHARACTER}", text))
    cell = WriteOnlyCell(sheet, held if len(held) <= MAX_TEXT else held[: MAX_TEXT - 1] + "…")
    if cell.value:
        cell.data_type = "s"
    cell.number_format = "@"
    if bad:
        cell.fill = _MARKED
    if font:
        cell.font = font
    return cell


def suggest(message: str, fields: Mapping[str, str], users: Mapping[str, str]) -> dict[str, str]:
    """Suggested values by failing column. `users` is the result of `closest_users`."""
    guesses = {}
    for column, column_message in failing_columns(message, fields).items():
        value = fields.get(column, "").strip()
        near = users.get(value.lower(), "") if column in ADDRESSES else ""
        guesses[column] = near or column_message.suggest(value)
    return {column: guess for column, guess in guesses.items() if guess}


def unknown_addresses(message: str, fields: Mapping[str, str]) -> list[str]:
    """The row's failing addresses, for which `closest_users` may find a user."""
    return [fields[name].strip().lower() for name in failing_columns(message, fields) if name in ADDRESSES]


def closest_users(conn: psycopg.Connection, addresses: Collection[str]) -> dict[str, str]:
    """The closest user's address for each unknown address: in the same domain, or with the same name in another one.
    Left out if several users are about equally close."""
    closest = {}
    for address, near in STATEMENTS.near_users(conn, emails=sorted(set(addresses))):
        spelled = {email.lower(): email for email in near}
        close = get_close_matches(address, spelled, n=2, cutoff=0.85)
        ratios = [SequenceMatcher(None, each, address).ratio() for each in close]
        if len(close) == 1 or (close and ratios[0] - ratios[1] >= CLEARLY_CLOSER):
            closest[address] = spelled[close[0]]
    return closest
