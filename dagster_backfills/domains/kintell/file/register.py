"""Taking a file in: its digest, its header, its row count, and what a look at it says beforehand."""

import hashlib
from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from uuid import UUID

import polars as pl
import psycopg
from psycopg.types.json import Jsonb

from dagster_backfills.domains.kintell.file.columns import ADDRESSES, ROLES
from dagster_backfills.domains.kintell.file.dialect import PlainCsv, ReadAs, to_plain_csv
from dagster_backfills.domains.kintell.file.files import FileError, SourceFile, open_file
from dagster_backfills.domains.kintell.file.header import Header
from dagster_backfills.domains.kintell.file.mapping import mapped_header, remember
from dagster_backfills.domains.kintell.file.reader import Block, read_blocks
from dagster_backfills.domains.kintell.importing.account import ImportJob, load_job
from dagster_backfills.domains.kintell.rows.rules import error_message, is_address, judge
from dagster_backfills.domains.kintell.rows.users import Users, resolve
from dagster_backfills.domains.kintell.statements import statements
from dagster_backfills.errors import UserError

SAMPLE_ROWS = 1000
LISTED = 1000  # missing users that a listing names; all of them are counted
READ_ROWS = 20_000
LOOKERS = 2


@dataclass(frozen=True)
class FileContent:
    """What a file contains, found in one pass."""

    header: Header
    sha256: str
    stamp: str


@dataclass(frozen=True)
class Registered:
    """A job for the file. `existing`: it was there before, unfinished or (with `once`) in whatever state.
    `preflight` is of the whole file."""

    job: UUID
    existing: bool
    status: str
    preflight: "Preflight"


def survey(conn: psycopg.Connection, source: SourceFile, read_as: ReadAs) -> "tuple[FileContent, Preflight]":
    """Digest the file, count its rows and look at them. Raises `FileError` where it can't be read as CSV."""
    stamp, plain = source.stamp(), to_plain_csv(source, read_as)
    header, digest = mapped_header(conn, plain, read_as), hashlib.sha256()
    with plain.open() as handle:
        digest.update(handle.read(header.data_offset))
    found = look_at(conn, header, read_blocks(plain, header, header.data_offset, 1, READ_ROWS, digest))
    sha256 = source.sha256() if plain.copy else digest.hexdigest()
    if source.stamp() != stamp:
        raise FileError(f"{source.url} was changed while it was read", hint="Wait until it is complete.")
    return FileContent(header, sha256, stamp), found


def register(
    conn: psycopg.Connection,
    url: str,
    allowed: list[str],
    *,
    on_duplicate: str = "skip",
    read_as: ReadAs | None = None,
    once: bool = False,
    run_id: str | None = None,
) -> Registered:
    """Make a job for the file at `url`, or find the unfinished one that its content has.

    With `once`, a content that has been imported is not registered again. A mapping of columns that is given is
    remembered for files with the same headers. Raises `FileError`, and `UserError` where the unfinished job deals with
    duplicates otherwise, or reads the file otherwise.
    """
    source, read_as = open_file(url, allowed), read_as or ReadAs()
    content, looked = survey(conn, source, read_as)
    header = content.header
    with conn.transaction():
        statements().lock_content(conn, sha256=content.sha256)
        found = statements().job_by_content(conn, sha256=content.sha256, sheet=header.form.sheet)
        if found and (once or found[1] != "completed"):
            job = load_job(conn, found[0])
            if job.status != "completed":
                _check_same(job, on_duplicate, header, read_as)
            return Registered(job.id, True, job.status, looked)
        if read_as.mapping:
            remember(conn, header)
        made = statements().register_job(
            conn,
            file_name=source.name,
            file_url=source.url,
            file_size=source.size,
            file_sha256=content.sha256,
            file_stamp=content.stamp,
            columns=list(header.columns),
            delimiter=header.form.delimiter,
            recognized=str(header),
            sheet=header.form.sheet,
            encoding=read_as.encoding,
            mapping=Jsonb(dict(header.mapped.columns)),
            on_duplicate=on_duplicate,
            total_rows=looked.rows,
            data_offset=header.data_offset,
            missing=looked.missing_count,
            run_id=run_id,
        )
    return Registered(made, False, "pending", looked)


def _check_same(job: ImportJob, on_duplicate: str, header: Header, read_as: ReadAs) -> None:
    now = f"on_duplicate = {job.on_duplicate}"
    if job.on_duplicate == on_duplicate:
        now = f"the file as {job.recognized}"
        if (job.header.names, job.encoding) == (header.names, read_as.encoding):
            return
    raise UserError(
        f"Job {job.id} imports this content with {now} and is {job.status}",
        hint="Resume it as it is, or cancel it first.",
    )


@dataclass(frozen=True)
class Preflight:
    """What an import would meet. `sample_errors`: (row, message) among the first thousand rows from the
    checkpoint on. `missing`: (address, role) of users that do not exist, the first thousand; `missing_count` all.
    `recognized`: what the file was taken for."""

    sample_rows: int
    sample_errors: list[tuple[int, str]]
    missing: list[tuple[str, str]]
    missing_count: int
    recognized: str = ""
    rows: int = 0


def look_at(conn: psycopg.Connection, header: Header, blocks: Iterator[Block]) -> Preflight:
    """Judge a sample of the rows, and look up the users of all of them, of two blocks while the next is read."""
    users = Users(conn)
    rows, sampled, errors, missing = 0, 0, [], dict[str, str]()
    under_way: deque[Future[list[tuple[str, str]]]] = deque()

    def note(found: list[tuple[str, str]]) -> None:
        for email, role in found:
            missing.setdefault(email, role)

    with ThreadPoolExecutor(LOOKERS, thread_name_prefix="kintell-looker") as lookers:
        for block in blocks:
            rows += len(block)
            if not sampled and len(block):
                sampled = min(len(block), SAMPLE_ROWS)
                errors = _sample_errors(block, users)
            if len(under_way) == LOOKERS:
                note(under_way.popleft().result())
            under_way.append(lookers.submit(_missing_in, block, users))
        for looked in under_way:
            note(looked.result())
    found = list(missing.items())
    return Preflight(sampled, sorted(errors), found[:LISTED], len(found), str(header), rows)


def preflight(
    conn: psycopg.Connection,
    source: SourceFile | PlainCsv,
    header: Header,
    offset: int | None = None,
    first_row: int = 1,
) -> Preflight:
    """Judge a sample, and look for missing users in all rows from `offset` on."""
    start = header.data_offset if offset is None else offset
    return look_at(conn, header, read_blocks(source, header, start, first_row, READ_ROWS))


def _sample_errors(block: Block, users: Users) -> list[tuple[int, str]]:
    last = block.first_row + SAMPLE_ROWS - 1
    rows = block.frame().filter(pl.col("row") <= last)
    judged = resolve(judge(rows), users).with_columns(error=error_message())
    bad = judged.filter(pl.col("error").is_not_null()).select("row", "error")
    return [(row, text) for row, (text, _) in block.broken.items() if row <= last] + bad.rows()


def _missing_in(block: Block, users: Users) -> list[tuple[str, str]]:
    return missing_in(block.frame(ADDRESSES), users).rows()


def missing_in(rows: pl.DataFrame, users: Users) -> pl.DataFrame:
    """`email`, `role` of the valid addresses in rows as read that belong to no user."""

    unknown = pl.concat(_unknown(rows, role, users) for role in ROLES)
    unknown = unknown.unique("email", keep="first", maintain_order=True)
    valid = [bool(email) and is_address(email) for email in unknown["email"]]
    return unknown.filter(pl.Series(valid, dtype=pl.Boolean))


def _unknown(rows: pl.DataFrame, role: str, users: Users) -> pl.DataFrame:
    emails = rows[f"{role}_email"].str.to_lowercase()
    return pl.DataFrame({"email": emails.filter(users.ids(emails).is_null())}).with_columns(role=pl.lit(role))
