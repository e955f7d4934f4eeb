"""Registers a file as an import job: digest, header, row count and preflight checks."""

from collections.abc import Iterator
from dataclasses import dataclass
from uuid import UUID

import polars as pl
import psycopg
from psycopg.types.json import Jsonb

from dagster_backfills.domains.kintell.file.columns import ADDRESSES, ROLES
from dagster_backfills.domains.kintell.file.dialect import PlainCsv, ReadOptions
from dagster_backfills.domains.kintell.file.files import FileError, SourceFile, open_file
from dagster_backfills.domains.kintell.file.header import Header, open_table, remember
from dagster_backfills.domains.kintell.file.reader import Block, read_blocks
from dagster_backfills.domains.kintell.importing.jobs import ImportJob, load_job
from dagster_backfills.domains.kintell.rows.rules import error_message, is_address, validate_values
from dagster_backfills.domains.kintell.rows.users import Users, resolve
from dagster_backfills.domains.kintell.statements import STATEMENTS
from dagster_backfills.errors import UserError

SAMPLE_ROWS = 1000
READ_ROWS = 20_000


@dataclass(frozen=True)
class Preflight:
    """A file's number of rows, and the problems found before its import. `sample_errors`: (row, message) in the first
    thousand rows. `missing`: (email, role) of users who do not exist."""

    rows: int
    sample_errors: list[tuple[int, str]]
    missing: list[tuple[str, str]]


@dataclass(frozen=True)
class Registration:
    """The job of a file. `existing`: it had been registered before and is unfinished, or completed (with `once`).
    `is_its_file`: the job reads this file, and not an earlier one with the same content."""

    job: UUID
    existing: bool
    preflight: Preflight
    is_its_file: bool = True


def register(
    conn: psycopg.Connection,
    url: str,
    allowed: list[str],
    *,
    on_duplicate: str = "skip",
    read_as: ReadOptions | None = None,
    once: bool = False,
    run_id: str | None = None,
) -> Registration:
    """Create a job for the file at `url`, or return the unfinished job with the same content.

    If that job's file is gone, this one takes its place. With `once`, content that has been imported is not registered
    again. A given mapping is remembered for files with the same headers. Raises `FileError`, and `UserError` if the
    unfinished job has other options.
    """
    source, read_as = open_file(url, allowed), read_as or ReadOptions()
    stamp = source.stamp()
    plain, header = open_table(conn, source, read_as)
    checks, sha256 = preflight(conn, plain, header), source.sha256()
    if source.stamp() != stamp:
        raise FileError(f"{source.url} changed while it was being read", hint="Wait until it is complete.")
    sheet = header.format.sheet
    with conn.transaction():
        STATEMENTS.lock_content(conn, sha256=sha256)
        existing = STATEMENTS.job_by_content(conn, sha256=sha256, sheet=sheet, finished=once)
        if existing:
            job = load_job(conn, existing)
            if job.status != "completed":
                _check_same_options(job, on_duplicate, header, read_as)
            is_its_file = job.status != "completed" and take_place(conn, job, source, allowed)
            return Registration(job.id, True, checks, is_its_file)
        if read_as.mapping:
            remember(conn, header)
        created = STATEMENTS.register_job(
            conn,
            file_name=source.name,
            file_url=source.url,
            file_size=source.size,
            file_sha256=sha256,
            file_stamp=stamp,
            columns=list(header.columns),
            delimiter=header.format.delimiter,
            recognized=str(header),
            sheet=sheet,
            encoding=read_as.encoding,
            mapping=Jsonb(dict(header.mapping.columns)),
            on_duplicate=on_duplicate,
            total_rows=checks.rows,
            data_offset=header.data_offset,
            missing=len(checks.missing),
            run_id=run_id,
        )
    return Registration(created, False, checks)


def open_unchanged(job: ImportJob, allowed: list[str]) -> SourceFile:
    """Open the job's file. Raises `FileError` if its content has changed; it is read only if its stamp differs."""
    source = open_file(job.file_url, allowed)
    same = source.size == job.file_size and (
        source.stamp() == job.file_stamp or source.sha256() == job.file_sha256
    )
    if not same:
        raise FileError(
            f"{job.file_url} has changed since job {job.id} was registered (SHA-256 {job.file_sha256[:12]}…)",
            hint="Put the original file back and resume the job, or cancel it and start the new file.",
        )
    return source


def take_place(conn: psycopg.Connection, job: ImportJob, source: SourceFile, allowed: list[str]) -> bool:
    """Let the job read this file, which has the same content, if its own is gone or changed and no worker holds the
    job. Returns whether the job reads this file now."""
    try:
        return open_unchanged(job, allowed).url == source.url
    except FileError:
        binds = {"url": source.url, "stamp": source.stamp(), "sha256": job.file_sha256}
        return STATEMENTS.relocate_job(conn, job=job.id, **binds) is not None


def _check_same_options(job: ImportJob, on_duplicate: str, header: Header, read_as: ReadOptions) -> None:
    existing = f"on_duplicate = {job.on_duplicate}"
    if job.on_duplicate == on_duplicate:
        existing = f"the file as {job.recognized}"
        if (job.header.names, job.encoding) == (header.names, read_as.encoding):
            return
    raise UserError(
        f"Job {job.id} imports this content with {existing} and is {job.status}",
        hint="Resume it with these options, or cancel it first.",
    )


def preflight(conn: psycopg.Connection, plain: PlainCsv, header: Header) -> Preflight:
    """Validate the first rows, and count all rows and look up their users."""
    users, rows, errors, missing = Users(conn), 0, list[tuple[int, str]](), dict[str, str]()
    for block in read_blocks(plain, header, header.data_offset, 1, READ_ROWS):
        rows += len(block)
        if block.first_row <= SAMPLE_ROWS:
            errors += _sample_errors(block, users)
        for email, role in _missing_in(block, users):
            missing.setdefault(email, role)
    return Preflight(rows, sorted(errors), list(missing.items()))


def _sample_errors(block: Block, users: Users) -> list[tuple[int, str]]:
    rows = block.frame().filter(pl.col("row") <= SAMPLE_ROWS)
    validated = resolve(validate_values(rows), users).with_columns(error=error_message())
    bad = validated.filter(pl.col("error").is_not_null()).select("row", "error")
    return [(row, text) for row, (text, _) in block.broken.items() if row <= SAMPLE_ROWS] + bad.rows()


def _missing_in(block: Block, users: Users) -> Iterator[tuple[str, str]]:
    """Yield (address, role) for the valid addresses in a block that belong to no user."""
    rows = block.frame(ADDRESSES)
    for role in ROLES:
        emails = rows[f"{role}_email"].str.to_lowercase()
        unknown = emails.filter(users.ids(emails).is_null()).unique(maintain_order=True)
        yield from ((email, role) for email in unknown if is_address(email))
