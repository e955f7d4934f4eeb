"""Workbooks for tests: made by openpyxl, or from XML where its details matter."""

import io
import zipfile
from collections.abc import Iterable, Mapping, Sequence
from typing import Any
from xml.sax.saxutils import escape

from openpyxl import Workbook

MAIN = "http://schemas.openxmlformats.org/spreadsheetml/2006/main"
_RELS = "http://schemas.openxmlformats.org/package/2006/relationships"
_TYPE = "http://schemas.openxmlformats.org/officeDocument/2006/relationships"
_CONTENT = "application/vnd.openxmlformats-officedocument.spreadsheetml."


def workbook(
    rows: Iterable[Sequence[Any]],
    *,
    formats: Mapping[int, str] | None = None,
    more: Mapping[str, list[list[Any]]] | None = None,
    hidden: bool = False,
    inline: bool = False,
) -> bytes:
    """A workbook with the rows in the sheet `Sessions`, with number formats by column, and `more` sheets."""
    book = Workbook(write_only=inline)
    sheet = book.create_sheet("Sessions") if inline else book.active
    sheet.title = "Sessions"
    for row in rows:
        sheet.append(row)
    for column, number_format in (formats or {}).items():
        for (cell,) in sheet.iter_rows(min_row=2, min_col=column, max_col=column):
            cell.number_format = number_format
    for name, other in (more or {}).items():
        added = book.create_sheet(name)
        for row in other:
            added.append(row)
        added.sheet_state = "hidden" if hidden else "visible"
    out = io.BytesIO()
    book.save(out)
    return out.getvalue()


def xml_workbook(
    rows: Iterable[Sequence[str]], prefix: str = "", refs: bool = True, shared: bool = False
) -> bytes:
    """Text rows as other programs write them: a prefix for each tag, no addresses; each text once (`shared`)."""
    lines, texts = [], dict[str, int]()
    for number, row in enumerate(rows, 1):
        cells = ""
        for at, text in enumerate(row):
            where = f' r="{chr(65 + at)}{number}"' if refs else ""
            kind, value = ("s", str(texts.setdefault(text, len(texts)))) if shared else ("str", escape(text))
            cells += f'<{prefix}c{where} t="{kind}"><{prefix}v>{value}</{prefix}v></{prefix}c>'
        lines.append(f"<{prefix}row>{cells}</{prefix}row>")
    return package(f"<{prefix}sheetData>{''.join(lines)}</{prefix}sheetData>", prefix, texts=texts)


def rich(text: str) -> str:
    """A text of the workbook's table, in two runs and with how it is pronounced."""
    runs = "".join(f'<r><t xml:space="preserve">{escape(part)}</t></r>' for part in (text[:2], text[2:]))
    return f"<si>{runs}<rPh sb='0' eb='1'><t>no part of it</t></rPh></si>"


def package(
    body: str, prefix: str = "", before: str = "", namespace: str = MAIN, texts: Iterable[str] = ()
) -> bytes:
    """A workbook around what stands in its only sheet."""
    name = f"xmlns{':' + prefix.rstrip(':') if prefix else ''}"
    parts = {
        "[Content_Types].xml": '<Types xmlns="http://schemas.openxmlformats.org/package/2006/content-types">'
        '<Default Extension="rels" ContentType="application/vnd.openxmlformats-package.relationships+xml"/>'
        f'<Override PartName="/xl/workbook.xml" ContentType="{_CONTENT}sheet.main+xml"/>'
        f'<Override PartName="/xl/worksheets/sheet1.xml" ContentType="{_CONTENT}worksheet+xml"/>'
        f'<Override PartName="/xl/sharedStrings.xml" ContentType="{_CONTENT}sharedStrings+xml"/></Types>',
        "xl/sharedStrings.xml": f'<sst xmlns="{MAIN}">{"".join(map(rich, texts))}</sst>',
        "_rels/.rels": f'<Relationships xmlns="{_RELS}"><Relationship Id="r1" Type="{_TYPE}/officeDocument" '
        'Target="xl/workbook.xml"/></Relationships>',
        "xl/workbook.xml": f'<workbook xmlns="{namespace}" xmlns:r="{_TYPE}"><sheets>'
        '<sheet name="Sessions" sheetId="1" r:id="r1"/></sheets></workbook>',
        "xl/_rels/workbook.xml.rels": f'<Relationships xmlns="{_RELS}"><Relationship Id="r1" '
        f'Type="{_TYPE}/worksheet" Target="worksheets/sheet1.xml"/></Relationships>',
        "xl/worksheets/sheet1.xml": f'{before}<{prefix}worksheet {name}="{namespace}">{body}</{prefix}worksheet>',
    }
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as archive:
        for part, text in parts.items():
            archive.writestr(part, text)
    return out.getvalue()
