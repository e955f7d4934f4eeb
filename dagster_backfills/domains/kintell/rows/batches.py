"""Prepares a block of the file for writing: validates rows, resolves users, finds duplicates. Begins no transaction."""

import os
import time
from dataclasses import dataclass

import polars as pl

from dagster_backfills.domains.kintell.file.columns import ADDRESSES, ROLES
from dagster_backfills.domains.kintell.file.reader import Block
from dagster_backfills.domains.kintell.rows import users as user_rules
from dagster_backfills.domains.kintell.rows.messages import Message, Reject
from dagster_backfills.domains.kintell.rows.rules import (
    ERROR_COLUMNS,
    error_message,
    is_bad,
    message_with,
    validate_values,
)
from dagster_backfills.domains.kintell.rows.schemas import session_rows, text_rows
from dagster_backfills.domains.kintell.rows.seen import Seen

_ADDRESS_ERRORS = [f"{name}_error" for name in ADDRESSES]


@dataclass
class Batch:
    """A block's rows: `sessions` to write and `rejects` to store."""

    block: Block
    sessions: pl.DataFrame
    rejects: list[Reject]


def prepare(
    block: Block,
    users: user_rules.Users,
    seen: Seen,
    *,
    create_missing_users: bool = False,
    position: int = 0,
) -> Batch:
    """Validate a block's rows and make a batch of them. The IDs of good rows are added to `seen`. `position` is the
    outbox position of the batch's first event."""
    rows = user_rules.resolve(validate_values(text_rows().validate(block.frame())), users)
    if create_missing_users:
        rows = _create_missing(rows, users)
    rows = _find_duplicates(rows, seen).with_columns(is_bad().alias("bad"))
    bad = rows.filter("bad").select("row", error_message())
    rejects = [Reject(number, problem, [text], False) for number, (problem, text) in block.broken.items()]
    rejects += [Reject(number, error, block.values_of(number), True) for number, error in bad.iter_rows()]
    return Batch(block, _sessions(rows.filter(~pl.col("bad")), position), sorted(rejects))


def _create_missing(rows: pl.DataFrame, users: user_rules.Users) -> pl.DataFrame:
    """Create the missing users of rows that have no other error."""
    otherwise_good = rows.filter(
        pl.all_horizontal(pl.col(name).is_null() for name in ERROR_COLUMNS if name not in _ADDRESS_ERRORS),
        *(pl.col(f"{role}_email_error").is_null() | user_rules.is_missing(role) for role in ROLES),
    )
    missing = {
        role: otherwise_good.filter(user_rules.is_missing(role))[f"{role}_email"].unique().sort().to_list()
        for role in ROLES
    }
    if not any(missing.values()):
        return rows
    for role, emails in missing.items():
        users.create(emails, role)
    without_missing = rows.with_columns(
        pl.when(~user_rules.is_missing(role)).then(pl.col(f"{role}_email_error")).alias(f"{role}_email_error")
        for role in ROLES
    )
    return user_rules.resolve(without_missing, users)


def _find_duplicates(rows: pl.DataFrame, seen: Seen) -> pl.DataFrame:
    """Set the message on repeated IDs. The first row that is otherwise good keeps the ID."""
    id_, row = pl.col("external_session_id"), pl.col("row")
    rows = rows.with_columns(good=~is_bad())
    rows = rows.with_columns(before=seen.contains(rows["external_session_id"], rows["good"]))
    first = pl.when(pl.col("good") & ~pl.col("before")).then(row).min().over(id_)
    repeated = (id_ != "") & (pl.col("before") | (first < row).fill_null(False))
    message = pl.when(repeated).then(message_with(Message.REPEATED_ID, id_))
    rows = rows.with_columns(duplicate_error=message)
    seen.add(rows.filter("good", pl.col("duplicate_error").is_null())["external_session_id"])
    return rows


def _sessions(good: pl.DataFrame, position: int) -> pl.DataFrame:
    schema = session_rows()
    numbered = good.rename({"row": "row_number"}).with_columns(
        rising_uuids(good.height).alias("id"),
        event_position=pl.int_range(pl.len(), dtype=pl.Int64) + position,
    )
    return schema.validate(numbered.select(list(schema.columns)))


def rising_uuids(n: int) -> pl.Series:
    """`n` UUIDs of version 7, 16 bytes each: 48 bits of time, then a counter, so that an index grows at its end."""
    start, random = int(time.time() * 1000) << 32 | 0x7000_8000, os.urandom(6 * n)
    return pl.Series(
        [
            (start | k >> 14 << 16 | k & 0x3FFF).to_bytes(10, "big") + random[6 * k : 6 * k + 6]
            for k in range(n)
        ],
        dtype=pl.Binary,
    )
