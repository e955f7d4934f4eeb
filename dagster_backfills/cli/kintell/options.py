"""Options and arguments that commands of `backfills kintell` share, and what they say to a run."""

import re
from difflib import get_close_matches
from pathlib import Path
from typing import Annotated, Any

import typer

from dagster_backfills.domains.kintell.file.mapping import given_pairs
from dagster_backfills.errors import UserError

JobId = Annotated[
    str, typer.Argument(metavar="JOB", help="The job's id, how that begins, or its file's name.")
]
File = Annotated[
    str, typer.Argument(metavar="FILE", help="A CSV or workbook: a path, or an fsspec URL (s3://…, gs://…).")
]
Sheet = Annotated[str, typer.Option(help="The workbook's sheet, where more than one has data.")]
Encoding = Annotated[str, typer.Option(help="The file's encoding, where it is not UTF-8: windows-1252, say.")]
Maps = Annotated[
    list[str] | None,
    typer.Option(
        "--map",
        metavar="HEADER=COLUMN",
        help="Which column a header stands for; an empty one leaves it out. May be given more than once.",
    ),
]
Duplicates = Annotated[
    str, typer.Option("--on-duplicate", help="A session that is there already: skip, update or error.")
]
BatchRows = Annotated[int, typer.Option(help="Rows a transaction.")]
MaxErrors = Annotated[int | None, typer.Option(help="Stop when more rows than this are rejected.")]
MaxRatio = Annotated[
    float | None, typer.Option(help="Stop when a larger share of the rows is rejected: 0.05 is 5 %.")
]
MakeUsers = Annotated[bool, typer.Option("--create-missing-users", help="Make users for unknown addresses.")]
RollBack = Annotated[
    bool, typer.Option("--rollback-on-failure", help="Roll back what max-errors or max-error-ratio stopped.")
]


def limits(
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


def reading(sheet: str, encoding: str, maps: list[str] | None) -> dict[str, Any]:
    given = {"sheet": sheet, "encoding": encoding, "mapping": given_pairs(maps or [])}
    return {name: value for name, value in given.items() if value}


def place(file: str) -> str:
    """Paths are the person's, URLs everyone's: the run works elsewhere."""
    return file if re.match(r"[A-Za-z][A-Za-z0-9+.-]*://", file) else str(Path(file).expanduser().absolute())


def there(file: str) -> str:
    """The same of a file that is to be read. Raises UserError for one that is not there, before anything is loaded."""
    found = Path(place(file))
    if place(file) == str(found) and not found.exists():
        beside = [each.name for each in found.parent.iterdir()] if found.parent.is_dir() else []
        close = get_close_matches(found.name, beside, n=3, cutoff=0.5)
        raise UserError(f"{found} does not exist.", f"Did you mean {', '.join(close)}?" if close else "")
    return place(file)
