"""Streams a workbook's sheet as CSV, using openpyxl's parser. Not here: converting cells to text (`cells`).

Memory holds one row of the sheet and the workbook's shared strings.
"""

import csv
import io
import warnings
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import IO, Any
from xml.etree.ElementTree import iterparse

from openpyxl.reader.excel import ExcelReader
from openpyxl.styles.numbers import BUILTIN_FORMATS, BUILTIN_FORMATS_MAX_SIZE
from openpyxl.styles.stylesheet import apply_stylesheet
from openpyxl.utils import get_column_letter
from openpyxl.worksheet._reader import FORMULA_TAG, ROW_TAG, WorkSheetParser
from openpyxl.xml.constants import SHARED_STRINGS, SHEET_MAIN_NS

from dagster_backfills.domains.kintell.file.archive import AS_CSV, PIECE, Archive, GuardedPart
from dagster_backfills.domains.kintell.file.cells import NOT_CALCULATED, ROUNDED, cell_text
from dagster_backfills.domains.kintell.file.files import FileError, SourceFile

MAX_SHEET_BYTES = 4 * 1024**3
MAX_TEXTS_BYTES = 256 * 1024**2
MAX_ROWS, MAX_COLUMNS = 1_048_576, 16_384
MAX_ELEMENTS = 8 * MAX_COLUMNS  # per row or text
SHEET_DATA, TEXT_ITEM, RUN, TEXT = (f"{{{SHEET_MAIN_NS}}}{tag}" for tag in ("sheetData", "si", "r", "t"))
STRICT = "Save it as Excel Workbook (.xlsx), not as Strict Open XML, or as CSV UTF-8."


class Workbook:
    """The parts of a workbook that its sheets need: shared strings, formats, names. openpyxl reads the small ones.
    Its own sheet class is not used: it scans each sheet an extra time and keeps remnants of each row."""

    def __init__(self, handle: IO[bytes], file: str) -> None:
        self.file = file
        reader = ExcelReader(handle, read_only=True, data_only=True, keep_links=False)
        self._archive = reader.archive = Archive(handle, file)
        reader.read_manifest()
        reader.read_workbook()
        apply_stylesheet(self._archive, reader.wb)
        self._book: Any = reader.wb
        self.sheets = [
            Sheet(self, sheet.name, sheet.state == "visible", rel.target)
            for sheet, rel in reader.parser.find_sheets()
            if "chartsheet" not in rel.Type and rel.target in reader.valid_files
        ]
        part = reader.package.find(SHARED_STRINGS)
        self.texts = self._texts(part.PartName.lstrip("/")) if part else []

    def _texts(self, part: str) -> list[str]:
        """The shared strings, without phonetic hints."""
        texts, root, elements = list[str](), None, 0
        for event, element in iterparse(
            self._archive.open_part(part, MAX_TEXTS_BYTES), events=("start", "end")
        ):
            root = element if root is None else root
            elements += event == "start"
            if elements > MAX_ELEMENTS:
                raise FileError(f"{self.file}: a text has too many parts", AS_CSV)
            if event == "end" and element.tag == TEXT_ITEM:
                runs = [each.find(TEXT) if each.tag == RUN else each for each in element]
                texts.append("".join(t.text or "" for t in runs if t is not None and t.tag == TEXT))
                root.clear()
                elements = 0
        return texts

    def open_sheet(self, part: str) -> GuardedPart:
        return self._archive.open_part(part, MAX_SHEET_BYTES)

    def parser(self) -> Any:
        book = self._book
        return WorkSheetParser(
            None, self.texts, True, book.epoch, book._date_formats, book._timedelta_formats
        )

    def number_format(self, style: int) -> str:
        number = self._book._cell_styles[style].numFmtId
        if number < BUILTIN_FORMATS_MAX_SIZE:
            return str(BUILTIN_FORMATS.get(number, "General"))
        return str(self._book._number_formats[number - BUILTIN_FORMATS_MAX_SIZE])


class Sheet:
    """A sheet, with notes about the cells that have been read."""

    def __init__(self, book: Workbook, name: str, visible: bool, part: str) -> None:
        self._book, self.name, self.visible, self._part = book, name, visible, part
        self._formats: dict[int, str] = {}
        self.rounded, self.first_rounded = 0, ""

    @property
    def notes(self) -> tuple[str, ...]:
        if not self.rounded:
            return ()
        numbers = f"{self.rounded:,} number{'s' * (self.rounded > 1)} of more than 15 digits"
        return (f"{numbers}, rounded by the spreadsheet (first: {self.first_rounded})",)

    def rows(self) -> Iterator[list[str]]:
        """Yield the texts of each row that is not blank."""
        parser = self._book.parser()
        data, elements = None, 0
        for event, element in iterparse(self._book.open_sheet(self._part), events=("start", "end")):
            if event == "start":
                data = element if element.tag == SHEET_DATA else data
                elements += 1
                if elements > MAX_ELEMENTS:
                    raise FileError(f"{self._book.file}, sheet {self.name}: a row has too many cells", AS_CSV)
            elif element.tag == ROW_TAG:
                if row := self._row(parser, element):
                    yield row
                if data is not None:
                    data.clear()  # drop the finished row elements
                elements = 0
            elif element.tag == SHEET_DATA:
                return
        raise FileError(f"{self._book.file}, sheet {self.name}, has no cells that can be read", STRICT)

    def _row(self, parser: Any, element: Any) -> list[str]:
        parser.row_dimensions.clear()
        number, cells = parser.parse_row(element)
        if number > MAX_ROWS or any(cell["column"] > MAX_COLUMNS for cell in cells):
            raise FileError(
                f"{self._book.file}, sheet {self.name}: there is no cell beyond row {MAX_ROWS:,} or XFD"
            )
        texts: list[str] = []
        for cell, xml in zip(cells, element, strict=True):
            text = self._text(cell)
            if not text and cell["value"] is None and xml.find(FORMULA_TAG) is not None:
                text = NOT_CALCULATED if cell["data_type"] != "str" else ""
            if text.startswith(ROUNDED):
                self.first_rounded = self.first_rounded or f"{get_column_letter(cell['column'])}{number}"
                self.rounded += 1
            at = cell["column"] - 1
            if text and at >= len(texts):
                texts += [""] * (at - len(texts) + 1)
            if text:
                texts[at] = text
        return texts if any(map(str.strip, texts)) else []

    def _text(self, cell: dict[str, Any]) -> str:
        style = cell["style_id"]
        if style not in self._formats:
            self._formats[style] = self._book.number_format(style)
        return cell_text(cell["value"], self._formats[style])


@contextmanager
def open_sheet(source: SourceFile, name: str) -> Iterator[Sheet]:
    """Open the sheet with this name, or the only visible sheet that has data. Raises `FileError` if there is no such
    sheet or more than one, and for a damaged or malicious workbook."""
    with source.open() as handle, _file_errors(source.name):
        yield _select_sheet(Workbook(handle, source.name), name)


@contextmanager
def _file_errors(name: str) -> Iterator[None]:
    """Turn every error of openpyxl, the zip or the XML parser into `FileError`."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    except (FileError, MemoryError):
        raise
    except Exception as error:
        text = " ".join(str(error).split())[:200]
        raise FileError(
            f"{name} can't be read as a workbook: {type(error).__name__}: {text}",
            hint="Open it in your spreadsheet program and save it as .xlsx or as CSV UTF-8.",
        ) from error


def as_csv(rows: Iterable[list[str]]) -> Iterator[bytes]:
    """The rows as comma-separated CSV, in pieces. Each row is padded to the width of the first."""
    buffer, width = io.StringIO(), 0
    writer = csv.writer(buffer, lineterminator="\r\n")
    for row in rows:
        width = width or len(row)
        writer.writerow(row + [""] * (width - len(row)))
        if buffer.tell() > PIECE:
            yield buffer.getvalue().encode()
            buffer.seek(0)
            buffer.truncate()
    yield buffer.getvalue().encode()


def _select_sheet(book: Workbook, name: str) -> Sheet:
    if not book.sheets:
        raise FileError(f"{book.file} has no sheets that can be read", STRICT)
    if name:
        named = [sheet for sheet in book.sheets if sheet.name.strip().lower() == name.strip().lower()]
        if not named:
            names = ", ".join(sheet.name for sheet in book.sheets)
            raise FileError(f"{book.file} has no sheet {name}", hint=f"It has: {names}")
        return named[0]
    filled = [sheet for sheet in book.sheets if sheet.visible and next(sheet.rows(), None)]
    if not filled:
        raise FileError(f"{book.file} is empty: none of its sheets has data")
    if len(filled) > 1:
        names = ", ".join(sheet.name for sheet in filled)
        raise FileError(
            f"{book.file} has {len(filled)} sheets with data: {names}",
            hint="Choose one: --sheet NAME, or `sheet` in the job's configuration.",
        )
    return filled[0]
