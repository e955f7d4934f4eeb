"""Shared options and arguments of `backfills kintell`, and the run configuration that they give."""

import re
from difflib import get_close_matches
from pathlib import Path
from typing import Annotated, Any

import typer

from dagster_backfills.domains.kintell.file.columns import parse_pairs
from dagster_backfills.domains.kintell.file.dialect import ReadOptions
from dagster_backfills.errors import UserError

JobId = Annotated[
    str, typer.Argument(metavar="JOB", help="The job's ID, a unique prefix of it, or its file name.")
]
File = Annotated[
    str, typer.Argument(metavar="FILE", help="A CSV or workbook: a path, or an fsspec URL (s3://…, gs://…).")
]
Sheet = Annotated[str, typer.Option(help="The workbook's sheet, if more than one has data.")]
Encoding = Annotated[str, typer.Option(help="The file's encoding, if not UTF-8. Example: windows-1252.")]
Maps = Annotated[
    list[str] | None,
    typer.Option(
        "--map",
        metavar="HEADER=COLUMN",
        help="Map a header to a column. An empty column ignores the header. Can be repeated.",
    ),
]
Duplicates = Annotated[
    str, typer.Option("--on-duplicate", help="If a session exists already: skip, update or error.")
]
BatchRows = Annotated[int, typer.Option(help="Rows per transaction.")]
MaxErrors = Annotated[int | None, typer.Option(help="Stop when more rows than this are rejected.")]
MaxRatio = Annotated[
    float | None, typer.Option(help="Stop when a larger share of the rows is rejected: 0.05 is 5 %.")
]
MakeUsers = Annotated[bool, typer.Option("--create-missing-users", help="Create missing users.")]
RollBack = Annotated[
    bool, typer.Option("--rollback-on-failure", help="Roll back if an error limit stops the import.")
]


def read_options(
    file: str, on_duplicate: str, sheet: str, encoding: str, maps: list[str] | None
) -> dict[str, Any]:
    """The arguments of `register` and `validate` for a file. Raises `UserError` if it does not exist."""
    if on_duplicate not in ("skip", "update", "error"):
        raise UserError(f"Unknown --on-duplicate {on_duplicate}.", "Choose skip, update or error.")
    read_as = ReadOptions(sheet, encoding, parse_pairs(maps or []))
    return {"url": _existing_location(file), "on_duplicate": on_duplicate, "read_as": read_as}


def absolute_location(file: str) -> str:
    """Make a path absolute, because the run has another working directory. URLs stay unchanged."""
    return file if re.match(r"[A-Za-z][A-Za-z0-9+.-]*://", file) else str(Path(file).expanduser().absolute())


def is_workbook(output: str) -> bool:
    """Whether the name of an output asks for a workbook."""
    return output.lower().endswith(".xlsx")


def _existing_location(file: str) -> str:
    """Like `absolute_location`, for a file to read. Raises `UserError` if a local file does not exist."""
    location = absolute_location(file)
    path = Path(location)
    if location == str(path) and not path.exists():
        siblings = [each.name for each in path.parent.iterdir()] if path.parent.is_dir() else []
        close = get_close_matches(path.name, siblings, n=3, cutoff=0.5)
        raise UserError(f"{path} does not exist.", f"Did you mean {', '.join(close)}?" if close else "")
    return location
