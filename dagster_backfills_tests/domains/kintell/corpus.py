"""Files as common programs write them, with their expected rows. Files are written by the program itself if available,
else its habits are imitated: delimiter, quoting, encoding, line breaks, headers, and text around the table."""

import csv
import datetime as dt
import gzip
import io
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import product

import pandas as pd
import polars as pl

from dagster_backfills_tests.domains.kintell.sample import COLUMNS
from dagster_backfills_tests.domains.kintell.workbooks import workbook, xml_workbook

HEADERS = {
    "snake": list(COLUMNS),
    "title": [name.replace("_", " ").title() for name in COLUMNS],
    "upper": [name.upper() for name in COLUMNS],
    "hyphen": [f" {name.replace('_', '-')} " for name in COLUMNS],
    "pascal": [name.title().replace("_", "") for name in COLUMNS],
    "camel": [name[0] + name.title().replace("_", "")[1:] for name in COLUMNS],
}
DATES = {
    "iso": "%Y-%m-%dT%H:%M:%SZ",
    "space": "%Y-%m-%d %H:%M:%S",
    "day": "%Y-%m-%d",
    "german": "%d.%m.%Y %H:%M",
    "us": "%m/%d/%Y",
}
FEEDBACK = {
    "plain": ["Good", "", "Rather good", "- good", "1E5", "N/A"],
    "accents": ["Zoë was très bien", "", "Müßig – 5 €", "Größe", "Ordinary", "N/A"],
    "full": [
        'Good, "very" good; and | more',
        "",
        "first line\nsecond\n\nline",
        "Zoë – 5 €, 👍",
        '"',
        "tab\there",
    ],
}
FEEDBACK["one line"] = [text.replace("\n", " ").replace("\t", " ") for text in FEEDBACK["full"]]
IDS = ("007", "KS-1", "12345678901234567890", "1E5", "a b", "0x1F")


@dataclass(frozen=True)
class Made:
    """A file of a program: its bytes, and the rows it holds, as text. `refused`: nobody could tell what it holds."""

    program: str
    data: bytes
    rows: list[list[str]]
    refused: bool = False
    name: str = "any.csv"


def truth(feedback: str = "full", date: str = "iso") -> list[list[str]]:
    """Six sessions."""
    return [
        [
            IDS[n],
            ("Mentorship", "language connect")[n % 2],
            f"participant{n}@example.com",
            f"volunteer{n}@example.com",
            moment(n).strftime(DATES[date]),
            str(30 + n),
            str(n) if n else "",
            text,
            ("", "B1", "c2")[n % 3],
        ]
        for n, text in enumerate(FEEDBACK[feedback])
    ]


def moment(n: int) -> dt.datetime:
    return dt.datetime(2024, 1 + n, 10 + n, 9, 30)


def written(
    header: list[str], rows: list[list[str]], encoding: str = "utf-8", end: str = "\r\n", **how
) -> bytes:
    """By Python's csv, which can follow any dialect."""
    out = io.StringIO(newline="")
    writer = csv.writer(out, lineterminator=end, **how)
    writer.writerows([header, *rows])
    return out.getvalue().encode(encoding)


def corpus() -> Iterator[Made]:
    """Every file."""
    for family in (spreadsheets, scripts, services, databases, oddities, workbooks, unsaid):
        yield from family()


def spreadsheets() -> Iterator[Made]:
    for (locale, delimiter), header, date in product(
        {"en": ",", "de": ";", "fr": ";", "nl": ";"}.items(), ("snake", "title"), ("iso", "german")
    ):
        rows = truth(date=date)
        yield Made(f"Excel {locale}", written(HEADERS[header], rows, "utf-8-sig", delimiter=delimiter), rows)
    for header, feedback in product(("snake", "title", "hyphen"), ("full", "plain")):
        rows = truth(feedback)
        yield Made("Excel Unicode text", written(HEADERS[header], rows, "utf-16", delimiter="\t"), rows)
        yield Made(
            "Excel for Mac, CR",
            written(HEADERS[header], truth("one line"), "utf-8-sig", "\r"),
            truth("one line"),
        )
    for delimiter, mark in product(",;\t|", (b"", b"\xef\xbb\xbf")):
        rows, line = truth(), f"sep={delimiter}\r\n".encode()
        yield Made("sep= line", mark + line + written(HEADERS["title"], rows, delimiter=delimiter), rows)
    for delimiter, quoting, header in product(
        ",;\t", (csv.QUOTE_MINIMAL, csv.QUOTE_ALL), ("snake", "title", "pascal")
    ):
        rows = truth()
        yield Made(
            "LibreOffice",
            written(HEADERS[header], rows, end="\n", delimiter=delimiter, quoting=quoting),
            rows,
        )
    for header, date in product(("snake", "title"), ("iso", "us")):
        rows = truth("one line", date)
        yield Made("Google Sheets, CSV", written(HEADERS[header], truth(date=date)), truth(date=date))
        yield Made("Google Sheets, TSV", written(HEADERS[header], rows, delimiter="\t"), rows)
    for empty, delimiter in product((1, 3), ",;"):
        rows = truth()
        padded = [row + [""] * empty for row in rows]
        yield Made(
            "Numbers, empty columns", written([*COLUMNS, *[""] * empty], padded, delimiter=delimiter), rows
        )


def scripts() -> Iterator[Made]:
    rows = truth()
    frame = pd.DataFrame(rows, columns=list(COLUMNS))
    for sep, quoting, encoding, index in product(
        ",;\t",
        (csv.QUOTE_MINIMAL, csv.QUOTE_ALL, csv.QUOTE_NONNUMERIC),
        ("utf-8", "utf-8-sig", "utf-16"),
        (False, True),
    ):
        out = io.BytesIO()
        frame.to_csv(out, sep=sep, quoting=quoting, encoding=encoding, index=index)  # type: ignore[call-overload]
        yield Made("pandas", out.getvalue(), rows)
    for separator, quotes, bom in product(",;\t|", ("necessary", "always", "non_numeric"), (False, True)):
        text = pl.DataFrame(rows, schema=list(COLUMNS), orient="row").write_csv(
            separator=separator, quote_style=quotes, include_bom=bom
        )
        yield Made("polars", text.encode(), rows)
    for dialect, packed in product(("excel", "excel-tab", "unix"), (False, True)):
        data = written(HEADERS["snake"], rows, dialect=dialect)
        yield Made("Python csv", gzip.compress(data) if packed else data, rows, name="any.csv.gz")
    quoted = written(
        ["", *COLUMNS], [[str(n), *row] for n, row in enumerate(rows)], end="\n", quoting=csv.QUOTE_ALL
    )
    yield Made("R write.csv", quoted, rows)
    for delimiter in ",;\t":
        yield Made("R readr", written(HEADERS["snake"], rows, end="\n", delimiter=delimiter), rows)


def services() -> Iterator[Made]:
    rows = truth()
    for header, end, quoting in product(
        ("camel", "pascal"), ("\n", "\r\n"), (csv.QUOTE_MINIMAL, csv.QUOTE_ALL)
    ):
        yield Made("Java: Jackson, OpenCSV", written(HEADERS[header], rows, end=end, quoting=quoting), rows)
    for header, delimiter, encoding in product(("pascal", "title"), ",;\t", ("utf-8", "utf-8-sig")):
        yield Made(".NET: CsvHelper", written(HEADERS[header], rows, encoding, delimiter=delimiter), rows)
    for encoding in ("utf-16-le", "utf-16-be"):
        data = "\ufeff".encode(encoding) + written(HEADERS["pascal"], rows, encoding)
        yield Made(".NET: StreamWriter, Unicode", data, rows)
    for delimiter in ",;":
        data = written(
            [f"\ufeff{HEADERS['title'][0]}", *HEADERS["title"][1:]], rows, "utf-8-sig", delimiter=delimiter
        )
        yield Made("PHP, two byte-order marks", data, rows)
    extra = [[*row, "42", "2024-01-01"] for row in rows]
    for delimiter in ",;\t":
        yield Made(
            "CRM export, more columns",
            written([*COLUMNS, "Owner", "Created"], extra, delimiter=delimiter),
            rows,
        )


def databases() -> Iterator[Made]:
    rows, plain = truth(), truth("plain")
    windows = [[text.replace("\n", "\r\n") for text in row] for row in rows]
    bare = {"quoting": csv.QUOTE_NONE, "quotechar": None}
    for delimiter, quoting in product(",;\t|", (csv.QUOTE_MINIMAL, csv.QUOTE_ALL)):
        data = written(HEADERS["snake"], rows, end="\n", delimiter=delimiter, quoting=quoting)
        yield Made("psql \\copy csv header", data, rows)
        yield Made("DBeaver, DataGrip", data.replace(b"\n", b"\r\n"), windows)
    for delimiter in ",;|\t":
        data = written(HEADERS["snake"], plain, end="\n", delimiter=delimiter, **bare)
        yield Made("psql unaligned, footer", data + b"(6 rows)\n", plain)
    lines = [" | ".join(text.ljust(20) for text in row) for row in [list(COLUMNS), *plain]]
    aligned = "\n".join([" " + lines[0], "+".join(["-" * 22] * len(COLUMNS)), *lines[1:], "(6 rows)", ""])
    yield Made("psql aligned", aligned.encode(), plain)
    for header in ("snake", "upper"):
        yield Made("mysql --batch", written(HEADERS[header], plain, end="\n", delimiter="\t", **bare), plain)
        for delimiter in ",;":
            data = written(HEADERS[header], rows, end="\n", delimiter=delimiter, quoting=csv.QUOTE_ALL)
            yield Made("phpMyAdmin, MySQL Workbench", data, rows)
    for delimiter, header in product(",;\t", ("snake", "pascal")):
        dashes = [["-" * len(name) for name in COLUMNS], *plain]
        data = written(HEADERS[header], dashes, delimiter=delimiter, **bare)
        yield Made("sqlcmd, dashes and footer", data + b"\r\n(6 rows affected)\r\n", plain)
    for encoding, delimiter in product(("utf-8-sig", "utf-16"), ",\t"):
        yield Made("SSMS results", written(HEADERS["pascal"], rows, encoding, delimiter=delimiter), rows)
    for end in ("\n", "\r\n"):
        data = written(HEADERS["upper"], rows, end=end, quoting=csv.QUOTE_ALL)
        yield Made("Oracle SQL Developer, SQLcl", data, rows)
        yield Made("Snowflake, Redshift, BigQuery", gzip.compress(data), rows, name="any.csv.gz")
        yield Made("sqlite3 .mode csv", written(HEADERS["snake"], rows, end=end), rows)


def oddities() -> Iterator[Made]:
    rows = truth()
    for delimiter in ",;\t":
        data = written(HEADERS["title"], rows, delimiter=delimiter)
        blank = (delimiter * 8 + "\r\n").encode()
        yield Made("blank rows at the end", data + blank * 20, rows)
        yield Made("blank lines before and behind", b"\r\n\r\n" + data + b"\r\n\r\n", rows)
        yield Made("Ctrl-Z at the end", data + b"\x1a", rows)
        yield Made("totals below", data + f"Total{delimiter}6\r\n\r\nGenerated 2024-02-01\r\n".encode(), rows)
        yield Made(
            "CR CR LF",
            written(HEADERS["snake"], truth("one line"), end="\r\r\n", delimiter=delimiter),
            truth("one line"),
        )
        yield Made("no line end at the end", data[:-2], rows)


def workbooks() -> Iterator[Made]:
    rows, book = truth(), "any.xlsx"
    for header, inline in product(("snake", "title", "upper", "pascal"), (False, True)):
        yield Made("openpyxl, text", workbook([HEADERS[header], *rows], inline=inline), rows, name=book)
    for header, show in product(
        ("snake", "title", "camel"), ("yyyy-mm-dd hh:mm:ss", "dd.mm.yyyy", "m/d/yy h:mm")
    ):
        typed = [
            [1000 + n, *row[1:4], moment(n), float(row[5]), int(row[6] or 0) or None, *row[7:]]
            for n, row in enumerate(rows)
        ]
        shown = [[str(1000 + n), *row[1:4], moment(n).isoformat(), *row[5:]] for n, row in enumerate(rows)]
        yield Made(
            "Excel, typed cells", workbook([HEADERS[header], *typed], formats={5: show}), shown, name=book
        )
        padded = [[f"{1000 + n:08}", *row[1:]] for n, row in enumerate(shown)]
        data = workbook([HEADERS[header], *typed], formats={1: "00000000", 5: show})
        yield Made("Excel, ids with zeros", data, padded, name=book)
    for more in ({"Notes": [], "Lists": []}, {"Lists": [["A"], ["B"]]}):
        yield Made(
            "Excel, other sheets",
            workbook([HEADERS["title"], *rows], more=more, hidden=True),
            rows,
            name=book,
        )
    for prefix, refs in product(("", "x:"), (True, False)):
        yield Made("OpenXML SDK", xml_workbook([HEADERS["pascal"], *rows], prefix, refs), rows, name=book)
    for header in HEADERS.values():
        yield Made("Excel, rich texts", xml_workbook([header, *rows], shared=True), rows, name=book)
    for index in (False, True):
        out = io.BytesIO()
        pd.DataFrame(rows, columns=list(COLUMNS)).to_excel(out, index=index)
        yield Made("pandas to_excel", out.getvalue(), rows, name=book)


def unsaid() -> Iterator[Made]:
    """What nobody can tell by looking, and what has no such header."""
    accents, plain = truth("accents"), truth("plain")
    for encoding, delimiter in (("cp1252", ","), ("cp1252", ";"), ("cp850", ";"), ("mac_roman", ",")):
        rows = [[text.replace("€", "EUR").replace("–", "-") for text in row] for row in accents]
        yield Made(
            f"Excel {encoding}", written(HEADERS["title"], rows, encoding, delimiter=delimiter), rows, True
        )
        yield Made(
            f"Excel {encoding}, ASCII only",
            written(HEADERS["title"], plain, encoding, delimiter=delimiter),
            plain,
        )
    for encoding in ("utf-16-le", "utf-16-be"):
        yield Made("UTF-16 without a mark", written(HEADERS["snake"], accents, encoding), accents, True)
    yield Made("bcp, no header", written(plain[0], plain[1:], quoting=csv.QUOTE_ALL), plain, True)
    yield Made(
        "a title above the header", b"Sessions 2024\r\n\r\n" + written(HEADERS["title"], plain), plain, True
    )
