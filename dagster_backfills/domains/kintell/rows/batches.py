"""A block of the file made ready to be written: judged, resolved, duplicates found. No transaction begins here."""

import os
import time
from dataclasses import dataclass

import polars as pl

from dagster_backfills.domains.kintell.file.columns import ADDRESSES, ROLES
from dagster_backfills.domains.kintell.file.reader import Block
from dagster_backfills.domains.kintell.rows import users as user_rules
from dagster_backfills.domains.kintell.rows.messages import Message, Reject
from dagster_backfills.domains.kintell.rows.rules import ERROR_COLUMNS, about, error_message, is_bad, judge
from dagster_backfills.domains.kintell.rows.schemas import session_rows, text_rows
from dagster_backfills.domains.kintell.rows.seen import Seen

_ADDRESS_ERRORS = [f"{name}_error" for name in ADDRESSES]


@dataclass
class Batch:
    """A block's rows: `sessions` to write, `rejects` to keep."""

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
    """Judge the rows of a block and make a batch of them. Adds the ids of the good ones to `seen`. `position`: of its
    first event in the outbox; those of a later batch come after."""
    judged = user_rules.resolve(judge(text_rows().validate(block.frame())), users)
    if create_missing_users:
        judged = _create_missing(judged, users)
    judged = _find_duplicates(judged, seen).with_columns(is_bad().alias("bad"))
    bad = judged.filter("bad").select("row", error_message())
    rejects = [Reject(number, problem, [text], False) for number, (problem, text) in block.broken.items()]
    rejects += [Reject(number, error, block.values_of(number), True) for number, error in bad.iter_rows()]
    return Batch(block, _sessions(judged.filter(~pl.col("bad")), position), sorted(rejects))


def _create_missing(judged: pl.DataFrame, users: user_rules.Users) -> pl.DataFrame:
    """Make the users that stand between a row and its import; not those of rows that are bad anyhow."""
    fine = judged.filter(
        pl.all_horizontal(pl.col(name).is_null() for name in ERROR_COLUMNS if name not in _ADDRESS_ERRORS),
        *(pl.col(f"{role}_email_error").is_null() | user_rules.is_missing(role) for role in ROLES),
    )
    wanted = {
        role: fine.filter(user_rules.is_missing(role))[f"{role}_email"].unique().sort().to_list()
        for role in ROLES
    }
    if not any(wanted.values()):
        return judged
    for role, emails in wanted.items():
        users.create(emails, role)
    forgotten = judged.with_columns(
        pl.when(~user_rules.is_missing(role)).then(pl.col(f"{role}_email_error")).alias(f"{role}_email_error")
        for role in ROLES
    )
    return user_rules.resolve(forgotten, users)


def _find_duplicates(judged: pl.DataFrame, seen: Seen) -> pl.DataFrame:
    """Second occurrences of an id get their message. The first row that is otherwise good has the id."""
    id_, row = pl.col("external_session_id"), pl.col("row")
    judged = judged.with_columns(good=~is_bad())
    judged = judged.with_columns(before=seen.contains(judged["external_session_id"], judged["good"]))
    first = pl.when(pl.col("good") & ~pl.col("before")).then(row).min().over(id_)
    again = (id_ != "") & (pl.col("before") | (first < row).fill_null(False))
    told = judged.with_columns(duplicate_error=pl.when(again).then(about(Message.TWICE, id_)))
    seen.add(told.filter("good", pl.col("duplicate_error").is_null())["external_session_id"])
    return told


def _sessions(good: pl.DataFrame, position: int) -> pl.DataFrame:
    schema = session_rows()
    numbered = good.rename({"row": "row_number"}).with_columns(
        rising_uuids(good.height).alias("id"),
        event_position=pl.int_range(pl.len(), dtype=pl.Int64) + position,
    )
    return schema.validate(numbered.select(list(schema.columns)))


def rising_uuids(n: int) -> pl.Series:
    """`n` UUIDs of version 7, 16 bytes each: 48 bits of time, then a counter, so that they rise and the index grows
    at its end."""
    start, chance = int(time.time() * 1000) << 32 | 0x7000_8000, os.urandom(6 * n)
    return pl.Series(
        [
            (start | k >> 14 << 16 | k & 0x3FFF).to_bytes(10, "big") + chance[6 * k : 6 * k + 6]
            for k in range(n)
        ],
        dtype=pl.Binary,
    )
