"""Taking a file in: its digest, its header, its row count, and what a look at it says beforehand."""

import hashlib
from collections.abc import Iterator
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
from dagster_backfills.domains.kintell.statements import STATEMENTS
from dagster_backfills.errors import UserError

SAMPLE_ROWS = 1000
LISTED = 1000  # missing users that a listing names; all of them are counted
READ_ROWS = 20_000


@dataclass(frozen=True)
class Preflight:
    """What an import would meet. `sample_errors`: (row, message) among the first thousand rows. `missing`: (address,
    role) of users that do not exist, the first thousand; `missing_count` all. `recognized`: what the file was taken
    for."""

    sample_rows: int
    sample_errors: list[tuple[int, str]]
    missing: list[tuple[str, str]]
    missing_count: int
    recognized: str
    rows: int


@dataclass(frozen=True)
class FileContent:
    """What a file contains, found in one pass."""

    header: Header
    sha256: str
    stamp: str
    preflight: Preflight


@dataclass(frozen=True)
class Registered:
    """A job for the file. `existing`: it was there before, unfinished or (with `once`) in whatever state.
    `preflight` is of the whole file."""

    job: UUID
    existing: bool
    preflight: Preflight


def survey(conn: psycopg.Connection, source: SourceFile, read_as: ReadAs) -> FileContent:
    """Digest the file, count its rows and look at them. Raises `FileError` where it can't be read as CSV."""
    stamp, plain = source.stamp(), to_plain_csv(source, read_as)
    header, digest = mapped_header(conn, plain, read_as), hashlib.sha256()
    with plain.open() as handle:
        digest.update(handle.read(header.data_offset))
    found = preflight(conn, plain, header, digest)
    sha256 = source.sha256() if plain.copy else digest.hexdigest()
    if source.stamp() != stamp:
        raise FileError(f"{source.url} was changed while it was read", hint="Wait until it is complete.")
    return FileContent(header, sha256, stamp, found)


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
    content = survey(conn, source, read_as)
    header, found = content.header, content.preflight
    with conn.transaction():
        STATEMENTS.lock_content(conn, sha256=content.sha256)
        there = STATEMENTS.job_by_content(conn, sha256=content.sha256, sheet=header.form.sheet, finished=once)
        if there:
            job = load_job(conn, there)
            if job.status != "completed":
                _check_same(job, on_duplicate, header, read_as)
            return Registered(job.id, True, found)
        if read_as.mapping:
            remember(conn, header)
        made = STATEMENTS.register_job(
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
            total_rows=found.rows,
            data_offset=header.data_offset,
            missing=found.missing_count,
            run_id=run_id,
        )
    return Registered(made, False, found)


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


def preflight(
    conn: psycopg.Connection, plain: PlainCsv, header: Header, digest: "hashlib._Hash | None" = None
) -> Preflight:
    """Judge a sample of the rows, and look up the users of all of them. With `digest`, the rows' bytes go into it."""
    users = Users(conn)
    rows, sampled, errors, missing = 0, 0, [], dict[str, str]()
    for block in read_blocks(plain, header, header.data_offset, 1, READ_ROWS, digest):
        rows += len(block)
        if not sampled and len(block):
            sampled = min(len(block), SAMPLE_ROWS)
            errors = _sample_errors(block, users)
        for email, role in _missing_in(block, users):
            missing.setdefault(email, role)
    found = list(missing.items())
    return Preflight(sampled, sorted(errors), found[:LISTED], len(found), str(header), rows)


def _sample_errors(block: Block, users: Users) -> list[tuple[int, str]]:
    last = block.first_row + SAMPLE_ROWS - 1
    rows = block.frame().filter(pl.col("row") <= last)
    judged = resolve(judge(rows), users).with_columns(error=error_message())
    bad = judged.filter(pl.col("error").is_not_null()).select("row", "error")
    return [(row, text) for row, (text, _) in block.broken.items() if row <= last] + bad.rows()


def _missing_in(block: Block, users: Users) -> Iterator[tuple[str, str]]:
    """Address and role of the valid addresses in a block that belong to no user."""
    rows = block.frame(ADDRESSES)
    for role in ROLES:
        emails = rows[f"{role}_email"].str.to_lowercase()
        unknown = emails.filter(users.ids(emails).is_null()).unique(maintain_order=True)
        yield from ((email, role) for email in unknown if is_address(email))
