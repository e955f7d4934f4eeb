"""The user's mapping of headers to columns: parsed, validated, and remembered for files with the same headers."""

import hashlib
from collections.abc import Iterable, Mapping, Sequence

import psycopg
from psycopg.types.json import Jsonb

from dagster_backfills.domains.kintell.file.columns import (
    KNOWN,
    LEFT_OUT,
    HeaderMapping,
    closest_match,
    column_name,
)
from dagster_backfills.domains.kintell.file.dialect import MAX_COPY_BYTES, PlainCsv, ReadOptions, to_plain_csv
from dagster_backfills.domains.kintell.file.files import open_file
from dagster_backfills.domains.kintell.file.header import Header, read_header
from dagster_backfills.domains.kintell.statements import STATEMENTS
from dagster_backfills.errors import UserError


def parse_pairs(texts: Iterable[str]) -> dict[str, str]:
    """Parse texts like `Kennung=session_id`. `check_mapping` validates the result."""
    pairs: dict[str, str] = {}
    for text in texts:
        header, equals, column = text.rpartition("=")
        if not equals or not column_name(header):
            raise UserError(
                f"{text} is not a mapping", hint='Use "HEADER=column", for example "Kennung=session_id".'
            )
        pairs[header] = column
    return pairs


def check_mapping(pairs: Mapping[str, str]) -> dict[str, str]:
    """The mapping by normalized header name. Raises `UserError` for an unknown column or one that is mapped twice."""
    columns = {name: name for name in KNOWN}
    mapping: dict[str, str] = {}
    for header, column in pairs.items():
        target = column_name(column) or LEFT_OUT
        if target not in (*KNOWN, LEFT_OUT):
            raise UserError(
                f"There is no column {column} to map {header} to{closest_match(target, columns)}",
                hint=f"The columns: {', '.join(KNOWN)}. An empty column ignores the header.",
            )
        if target in mapping.values() and target != LEFT_OUT:
            raise UserError(f"{column} is mapped more than once", hint="Map only one header to it.")
        mapping[column_name(header)] = target
    return mapping


def open_with_header(
    conn: psycopg.Connection, url: str, allowed: list[str], read_as: ReadOptions, most: int = MAX_COPY_BYTES
) -> tuple[PlainCsv, Header]:
    """Open the file at `url` as plain CSV and read its header. A converted copy stops at about `most` bytes."""
    plain = to_plain_csv(open_file(url, allowed), read_as, most)
    return plain, mapped_header(conn, plain, read_as)


def mapped_header(conn: psycopg.Connection, plain: PlainCsv, read_as: ReadOptions) -> Header:
    """The file's header, with the mapping given by the user, else the one remembered for the same headers."""
    if read_as.mapping:
        given = HeaderMapping(check_mapping(read_as.mapping), "as given")
        return read_header(plain, lambda _: given)
    return read_header(plain, lambda headers: _recall(conn, headers))


def remember(conn: psycopg.Connection, header: Header) -> None:
    """Store the mapping for later files with the same headers."""
    if header.mapping.columns:
        STATEMENTS.remember_mapping(
            conn,
            digest=_digest(header.columns),
            headers=list(header.columns),
            mapping=Jsonb(dict(header.mapping.columns)),
        )


def _recall(conn: psycopg.Connection, headers: Sequence[str]) -> HeaderMapping:
    row = STATEMENTS.mapping_of_headers(conn, digest=_digest(headers))
    return HeaderMapping(row[0], f"as remembered since {row[1]}, from {row[2]}") if row else HeaderMapping()


def _digest(headers: Iterable[str]) -> bytes:
    """A digest of the set of header names: ignores their order and the columns that an error file adds."""
    names = {name for name in map(column_name, headers) if name and not name.startswith("_error_")}
    return hashlib.sha256("\0".join(sorted(names)).encode(errors="replace")).digest()
