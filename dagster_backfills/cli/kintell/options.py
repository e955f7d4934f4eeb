"""Shared options and arguments of `backfills kintell`, and the run configuration that they give."""

import re
from difflib import get_close_matches
from pathlib import Path
from typing import Annotated, Any

import typer

from dagster_backfills.domains.kintell.file.mapping import parse_pairs
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


def limit_config(
    batch_rows: int, max_errors: int | None, ratio: float | None, make_users: bool, roll_back: bool
) -> dict[str, Any]:
    given = {
        "batch_rows": batch_rows,
        "max_errors": max_errors,
        "max_error_ratio": ratio,
        "create_missing_users": make_users,
        "rollback_on_failure": roll_back,
    }
    return {name: value for name, value in given.items() if value is not None}


def read_config(sheet: str, encoding: str, maps: list[str] | None) -> dict[str, Any]:
    given = {"sheet": sheet, "encoding": encoding, "mapping": parse_pairs(maps or [])}
    return {name: value for name, value in given.items() if value}


def absolute_location(file: str) -> str:
    """Make a path absolute, because the run has another working directory. URLs stay unchanged."""
    return file if re.match(r"[A-Za-z][A-Za-z0-9+.-]*://", file) else str(Path(file).expanduser().absolute())


def existing_location(file: str) -> str:
    """Like `absolute_location`, for a file to read. Raises `UserError` if a local file does not exist."""
    path = Path(absolute_location(file))
    if absolute_location(file) == str(path) and not path.exists():
        siblings = [each.name for each in path.parent.iterdir()] if path.parent.is_dir() else []
        close = get_close_matches(path.name, siblings, n=3, cutoff=0.5)
        raise UserError(f"{path} does not exist.", f"Did you mean {', '.join(close)}?" if close else "")
    return absolute_location(file)
