"""Taking a file in: its digest, its header, its row count, and what a look at it says beforehand."""

import hashlib
from dataclasses import dataclass
from typing import TYPE_CHECKING
from uuid import UUID

import psycopg

from dagster_backfills.defs.kintell.account import load_job
from dagster_backfills.defs.kintell.files import FileError, SourceFile, open_file
from dagster_backfills.defs.kintell.parse import parse
from dagster_backfills.defs.kintell.reader import Header, read_blocks, read_header
from dagster_backfills.defs.kintell.rules import error_message, judge
from dagster_backfills.defs.kintell.statements import statements
from dagster_backfills.defs.kintell.users import Users, resolve
from dagster_backfills.lib.errors import UserError

if TYPE_CHECKING:
    import polars as pl

SAMPLE_ROWS = 1000
LISTED = 1000  # missing users that a listing names; all of them are counted
READ_ROWS = 20_000
ADDRESSES = ("participant_email", "volunteer_email")


@dataclass(frozen=True)
class Content:
    """What a file contains, found in one pass."""

    header: Header
    sha256: str
    total_rows: int
    stamp: str


@dataclass(frozen=True)
class Registered:
    """A job for the file. `existing`: it was there before, unfinished or (with `once`) in whatever state."""

    job: UUID
    existing: bool
    status: str


def survey(source: SourceFile) -> Content:
    """Digest the file and count its rows. Raises `FileError` where it can't be read as CSV."""
    stamp, header = source.stamp(), read_header(source)
    digest, rows = hashlib.sha256(), 0
    with source.open() as handle:
        digest.update(handle.read(header.data_offset))
    for block in read_blocks(source, header, header.data_offset, 1, READ_ROWS, digest):
        rows += len(block.records)
    if source.stamp() != stamp:
        raise FileError(f"{source.url} was changed while it was read", hint="Wait until it is complete.")
    return Content(header, digest.hexdigest(), rows, stamp)


def register(
    conn: psycopg.Connection, url: str, allowed: list[str], *, on_duplicate: str = "skip", once: bool = False
) -> Registered:
    """Make a job for the file at `url`, or find the unfinished one that its content has.

    With `once`, a content that has been imported is not registered again. Raises `FileError`, and `UserError`
    where the unfinished job deals with duplicates otherwise.
    """
    source = open_file(url, allowed)
    content = survey(source)
    with conn.transaction():
        statements().lock_content(conn, sha256=content.sha256)
        found = statements().job_by_content(conn, sha256=content.sha256)
        if found and (once or found[1] != "completed"):
            job = load_job(conn, found[0])
            if job.status != "completed" and job.on_duplicate != on_duplicate:
                raise UserError(
                    f"Job {job.id} imports this content with on_duplicate = {job.on_duplicate} and is {job.status}",
                    hint="Resume it as it is, or cancel it first.",
                )
            return Registered(job.id, True, job.status)
        made = statements().register_job(
            conn,
            file_name=source.name,
            file_url=source.url,
            file_size=source.size,
            file_sha256=content.sha256,
            file_stamp=content.stamp,
            columns=list(content.header.columns),
            line_break=content.header.line_break,
            on_duplicate=on_duplicate,
            total_rows=content.total_rows,
            data_offset=content.header.data_offset,
        )
    return Registered(made, False, "pending")


@dataclass(frozen=True)
class Preflight:
    """What an import would meet. `sample_errors`: (row, message) among the first thousand rows from the
    checkpoint on. `missing`: (address, role) of users that do not exist, the first thousand; `missing_count` all."""

    sample_rows: int
    sample_errors: list[tuple[int, str]]
    missing: list[tuple[str, str]]
    missing_count: int


def preflight(
    conn: psycopg.Connection,
    source: SourceFile,
    header: Header,
    offset: int | None = None,
    first_row: int = 1,
) -> Preflight:
    """Judge a sample, and look for missing users in all rows from `offset` on."""
    users, errors, sampled = Users(conn), [], 0
    gone: dict[str, str] = {}
    start = header.data_offset if offset is None else offset
    for block in read_blocks(source, header, start, first_row, READ_ROWS):
        if sampled == 0 and len(block.records):
            rows = parse(block, header)
            sampled = min(len(block.records), SAMPLE_ROWS)
            errors += [(block.first_row + i, text) for i, text in rows.broken.items() if i < SAMPLE_ROWS]
            errors += _judged_errors(rows.rows.head(SAMPLE_ROWS), users, block.first_row)
        else:
            rows = parse(block, header, ADDRESSES)
        for email, role in missing_in(rows.rows, users).iter_rows():
            gone.setdefault(email, role)
    return Preflight(sampled, sorted(errors), list(gone.items())[:LISTED], len(gone))


def _judged_errors(rows: "pl.DataFrame", users: Users, first_row: int) -> list[tuple[int, str]]:
    import polars as pl

    judged = resolve(judge(rows), users).with_columns(error=error_message())
    bad = judged.filter(pl.col("error").is_not_null())
    return [(first_row + row, error) for row, error in bad.select("row", "error").iter_rows()]


def missing_in(rows: "pl.DataFrame", users: Users) -> "pl.DataFrame":
    """`email`, `role` of the valid addresses in rows as read that belong to no user."""
    import polars as pl

    from dagster_backfills.defs.kintell.rules import is_address

    pairs = pl.concat(
        rows.select(pl.col(f"{role}_email").str.to_lowercase().alias("email"), pl.lit(role).alias("role"))
        for role in ("participant", "volunteer")
    ).unique("email", keep="first", maintain_order=True)
    unknown = pairs.join(users.find(pairs["email"]), on="email", how="anti", maintain_order="left")
    valid = [bool(email) and is_address(email) for email in unknown["email"]]
    return unknown.filter(pl.Series(valid, dtype=pl.Boolean))
