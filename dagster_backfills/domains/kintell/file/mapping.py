"""Which header stands for which column, where a person says so: checked, and remembered by the set of header names."""

import hashlib
from collections.abc import Iterable, Mapping, Sequence

import psycopg
from psycopg.types.json import Jsonb

from dagster_backfills.domains.kintell.file.columns import KNOWN, LEFT_OUT, Mapped, closest, column_name
from dagster_backfills.domains.kintell.file.dialect import MAX_COPY_BYTES, PlainCsv, ReadAs, to_plain_csv
from dagster_backfills.domains.kintell.file.files import open_file
from dagster_backfills.domains.kintell.file.header import Header, read_header
from dagster_backfills.domains.kintell.statements import STATEMENTS
from dagster_backfills.errors import UserError


def given_pairs(texts: Iterable[str]) -> dict[str, str]:
    """`Kennung=session_id` … as a mapping that is still to be checked."""
    pairs: dict[str, str] = {}
    for text in texts:
        header, equals, column = text.rpartition("=")
        if not equals or not column_name(header):
            raise UserError(
                f"{text} maps nothing", hint='Give it as "HEADER=column", "Kennung=session_id" say.'
            )
        pairs[header] = column
    return pairs


def checked(pairs: Mapping[str, str]) -> dict[str, str]:
    """The mapping by the names of its headers. Raises `UserError` for a column that there is not, or is given twice."""
    mapping: dict[str, str] = {}
    for header, column in pairs.items():
        target = column_name(column) or LEFT_OUT
        if target not in (*KNOWN, LEFT_OUT):
            raise UserError(
                f"There is no column {column} to map {header} to{closest(target, {name: name for name in KNOWN})}",
                hint=f"The columns: {', '.join(KNOWN)}. An empty one leaves the header out.",
            )
        if target in mapping.values() and target != LEFT_OUT:
            raise UserError(f"{column} is mapped more than once", hint="One header stands for it.")
        mapping[column_name(header)] = target
    return mapping


def opened(
    conn: psycopg.Connection, url: str, allowed: list[str], read_as: ReadAs, most: int = MAX_COPY_BYTES
) -> tuple[PlainCsv, Header]:
    """The file at `url` as plain CSV (of a converted one `most` bytes or little more), and its header."""
    plain = to_plain_csv(open_file(url, allowed), read_as, most)
    return plain, mapped_header(conn, plain, read_as)


def mapped_header(conn: psycopg.Connection, plain: PlainCsv, read_as: ReadAs) -> Header:
    """The file's header, with the columns as they are given, else as they were for the same set of headers before."""
    if read_as.mapping:
        given = Mapped(checked(read_as.mapping), "as given")
        return read_header(plain, lambda _: given)
    return read_header(plain, lambda headers: _recall(conn, headers))


def remember(conn: psycopg.Connection, header: Header) -> None:
    """Keep what was said about these headers for the next file that has the same."""
    if header.mapped.columns:
        STATEMENTS.remember_mapping(
            conn,
            digest=_digest(header.columns),
            headers=list(header.columns),
            mapping=Jsonb(dict(header.mapped.columns)),
        )


def _recall(conn: psycopg.Connection, headers: Sequence[str]) -> Mapped:
    found = STATEMENTS.mapping_of_headers(conn, digest=_digest(headers))
    return Mapped(found[0], f"as remembered since {found[1]}, from {found[2]}") if found else Mapped()


def _digest(headers: Iterable[str]) -> bytes:
    """Of the set of names: their order does not matter, nor do the columns that an error file adds."""
    names = {name for name in map(column_name, headers) if name and not name.startswith("_error_")}
    return hashlib.sha256("\0".join(sorted(names)).encode(errors="replace")).digest()
