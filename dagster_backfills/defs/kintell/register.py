"""Taking a file in: its digest, its header, its row count, and what a look at it says beforehand."""

import hashlib
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING
from uuid import UUID

import psycopg

from dagster_backfills.defs.kintell.account import load_job
from dagster_backfills.defs.kintell.files import FileError, SourceFile, open_file
from dagster_backfills.defs.kintell.memory import give_back_early
from dagster_backfills.defs.kintell.parse import parse
from dagster_backfills.defs.kintell.reader import Block, Header, read_blocks, read_header
from dagster_backfills.defs.kintell.rules import error_message, judge
from dagster_backfills.defs.kintell.statements import statements
from dagster_backfills.defs.kintell.users import ROLES, Users, resolve
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
    """A job for the file. `existing`: it was there before, unfinished or (with `once`) in whatever state.
    `preflight` is of the whole file."""

    job: UUID
    existing: bool
    status: str
    preflight: "Preflight"


def survey(conn: psycopg.Connection, source: SourceFile) -> tuple[Content, "Preflight"]:
    """Digest the file, count its rows and look at them. Raises `FileError` where it can't be read as CSV."""
    stamp, header = source.stamp(), read_header(source)
    digest, rows, look = hashlib.sha256(), 0, Look(conn, header)
    with source.open() as handle:
        digest.update(handle.read(header.data_offset))
    for block in _ahead(read_blocks(source, header, header.data_offset, 1, READ_ROWS, digest)):
        rows += len(block.records)
        look.add(block)
    if source.stamp() != stamp:
        raise FileError(f"{source.url} was changed while it was read", hint="Wait until it is complete.")
    return Content(header, digest.hexdigest(), rows, stamp), look.found()


def _ahead(blocks: Iterator[Block]) -> Iterator[Block]:
    """The blocks, each read and digested while the one before is looked at."""
    with ThreadPoolExecutor(1, thread_name_prefix="kintell-reader") as reader:
        coming = reader.submit(next, blocks, None)
        while (block := coming.result()) is not None:
            coming = reader.submit(next, blocks, None)
            yield block


def register(
    conn: psycopg.Connection, url: str, allowed: list[str], *, on_duplicate: str = "skip", once: bool = False
) -> Registered:
    """Make a job for the file at `url`, or find the unfinished one that its content has.

    With `once`, a content that has been imported is not registered again. Raises `FileError`, and `UserError`
    where the unfinished job deals with duplicates otherwise.
    """
    give_back_early()
    source = open_file(url, allowed)
    content, looked = survey(conn, source)
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
            return Registered(job.id, True, job.status, looked)
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
    return Registered(made, False, "pending", looked)


@dataclass(frozen=True)
class Preflight:
    """What an import would meet. `sample_errors`: (row, message) among the first thousand rows from the
    checkpoint on. `missing`: (address, role) of users that do not exist, the first thousand; `missing_count` all."""

    sample_rows: int
    sample_errors: list[tuple[int, str]]
    missing: list[tuple[str, str]]
    missing_count: int


class Look:
    """Judges a sample of the rows that it is shown, and looks up the users of all of them."""

    def __init__(self, conn: psycopg.Connection, header: Header) -> None:
        self.header, self.users = header, Users(conn)
        self.sampled = 0
        self.errors: list[tuple[int, str]] = []
        self.missing: dict[str, str] = {}

    def add(self, block: Block) -> None:
        if self.sampled == 0 and len(block.records):
            rows = parse(block, self.header)
            self.sampled = min(len(block.records), SAMPLE_ROWS)
            self.errors += [(block.first_row + i, text) for i, text in rows.broken.items() if i < SAMPLE_ROWS]
            self.errors += _judged_errors(rows.rows.head(SAMPLE_ROWS), self.users, block.first_row)
        else:
            rows = parse(block, self.header, ADDRESSES)
        for email, role in missing_in(rows.rows, self.users).iter_rows():
            self.missing.setdefault(email, role)

    def found(self) -> Preflight:
        missing = list(self.missing.items())
        return Preflight(self.sampled, sorted(self.errors), missing[:LISTED], len(missing))


def preflight(
    conn: psycopg.Connection,
    source: SourceFile,
    header: Header,
    offset: int | None = None,
    first_row: int = 1,
) -> Preflight:
    """Judge a sample, and look for missing users in all rows from `offset` on."""
    look = Look(conn, header)
    start = header.data_offset if offset is None else offset
    for block in _ahead(read_blocks(source, header, start, first_row, READ_ROWS)):
        look.add(block)
    return look.found()


def _judged_errors(rows: "pl.DataFrame", users: Users, first_row: int) -> list[tuple[int, str]]:
    import polars as pl

    judged = resolve(judge(rows), users).with_columns(error=error_message())
    bad = judged.filter(pl.col("error").is_not_null())
    return [(first_row + row, error) for row, error in bad.select("row", "error").iter_rows()]


def missing_in(rows: "pl.DataFrame", users: Users) -> "pl.DataFrame":
    """`email`, `role` of the valid addresses in rows as read that belong to no user."""
    import polars as pl

    from dagster_backfills.defs.kintell.rules import is_address

    unknown = pl.concat(_unknown(rows, role, users) for role in ROLES)
    unknown = unknown.unique("email", keep="first", maintain_order=True)
    valid = [bool(email) and is_address(email) for email in unknown["email"]]
    return unknown.filter(pl.Series(valid, dtype=pl.Boolean))


def _unknown(rows: "pl.DataFrame", role: str, users: Users) -> "pl.DataFrame":
    import polars as pl

    emails = rows[f"{role}_email"].str.to_lowercase()
    return pl.DataFrame({"email": emails.filter(users.ids(emails).is_null())}).with_columns(role=pl.lit(role))
