"""A block of the file made ready to be written: judged, resolved, duplicates found. No transaction begins here."""

import os
import time
from dataclasses import dataclass

import numpy as np
import polars as pl
import pyarrow as pa

from dagster_backfills.domains.kintell.file.columns import ADDRESSES, ROLES
from dagster_backfills.domains.kintell.file.reader import Block
from dagster_backfills.domains.kintell.rows import users as user_rules
from dagster_backfills.domains.kintell.rows.messages import Message
from dagster_backfills.domains.kintell.rows.rules import (
    ERROR_COLUMNS,
    about,
    error_message,
    is_bad,
    judge,
    made_where,
    spread,
)
from dagster_backfills.domains.kintell.rows.schemas import session_rows, text_rows
from dagster_backfills.domains.kintell.rows.seen import Seen

_ADDRESS_ERRORS = [f"{name}_error" for name in ADDRESSES]


@dataclass(frozen=True)
class Reject:
    """A row that is not imported. `values` are its fields as they stood in the file; of one that is not `replayable`,
    which could not be split or decoded, its whole text is the only one."""

    row_number: int
    message: str
    values: list[str]
    replayable: bool


@dataclass
class Batch:
    """A block's rows: `sessions` to write, `rejects` to keep."""

    block: Block
    sessions: pl.DataFrame
    rejects: list[Reject]
    position: int  # of its events in the outbox: those of a later batch come after


def prepare(
    block: Block,
    users: user_rules.Users,
    seen: Seen,
    *,
    create_missing_users: bool = False,
    position: int = 0,
) -> Batch:
    """Judge the rows of a block and make a batch of them. Adds the ids of the good ones to `seen`."""
    judged = user_rules.resolve(judge(text_rows().validate(block.frame())), users)
    if create_missing_users:
        judged = _create_missing(judged, users)
    judged = _find_duplicates(judged, seen).with_columns(is_bad().alias("bad"))
    bad = judged.filter("bad").select("row", error_message())
    rejects = [Reject(number, problem, [text], False) for number, (problem, text) in block.broken.items()]
    rejects += [Reject(number, error, block.values_of(number), True) for number, error in bad.iter_rows()]
    rejects.sort(key=lambda reject: reject.row_number)
    return Batch(block, _sessions(judged.filter(~pl.col("bad"))), rejects, position)


def _create_missing(judged: pl.DataFrame, users: user_rules.Users) -> pl.DataFrame:
    """Make the users that stand between a row and its import; not those of rows that are bad anyhow."""
    fine = judged.filter(
        pl.all_horizontal(pl.col(name).is_null() for name in ERROR_COLUMNS if name not in _ADDRESS_ERRORS),
        *(pl.col(f"{role}_email_error").is_null() | user_rules.is_missing(role) for role in ROLES),
    )
    wanted = user_rules.missing(fine)
    if not wanted.height:
        return judged
    users.create({role: wanted.filter(pl.col("role") == role)["email"].to_list() for role in ROLES})
    forgotten = judged.drop([f"{role}_id" for role in ROLES]).with_columns(
        pl.when(~user_rules.is_missing(role)).then(pl.col(f"{role}_email_error")).alias(f"{role}_email_error")
        for role in ROLES
    )
    return user_rules.resolve(forgotten, users)


def _find_duplicates(judged: pl.DataFrame, seen: Seen) -> pl.DataFrame:
    """Second occurrences of an id get their message. The first row that is otherwise good has the id."""
    column, ids = pl.col("external_session_id"), judged["external_session_id"]
    good = judged.select(~is_bad()).to_series()
    before = seen.contains(ids, good)
    # Few rows share their id's hash with another; only these are compared.
    doubtful = before | ids.hash().is_duplicated()
    first = pl.when(pl.col("good") & ~pl.col("before")).then(pl.col("at")).min().over(column)
    again = spread(
        pl.DataFrame([ids, good.alias("good"), before.alias("before")])
        .with_row_index("at")
        .filter(doubtful)
        .select((column != "") & (pl.col("before") | (first < pl.col("at")).fill_null(False)))
        .to_series(),
        doubtful,
    ).fill_null(False)
    seen.add(ids.filter(good & ~again))
    told = made_where(again, ids, about(Message.TWICE, column))
    return judged.with_columns(told.alias("duplicate_error"))


def _sessions(good: pl.DataFrame) -> pl.DataFrame:
    schema = session_rows()
    numbered = good.rename({"row": "row_number"}).with_columns(rising_uuids(good.height).alias("id"))
    return schema.validate(numbered.select(list(schema.columns)))


def rising_uuids(n: int) -> pl.Series:
    """`n` UUIDs of version 7, 16 bytes each: 48 bits of time, then a counter, so that they rise and the index grows
    at its end."""
    raw = np.frombuffer(os.urandom(16 * n), np.uint8).reshape(n, 16).copy()
    now = int(time.time() * 1000)
    count = np.arange(n, dtype=np.uint32)
    raw[:, :6] = np.frombuffer(now.to_bytes(6, "big"), np.uint8)
    raw[:, 6] = 0x70 | ((count >> 22) & 0x0F)
    raw[:, 7] = (count >> 14) & 0xFF
    raw[:, 8] = 0x80 | ((count >> 8) & 0x3F)
    raw[:, 9] = count & 0xFF
    ids = pa.FixedSizeBinaryArray.from_buffers(pa.binary(16), n, [None, pa.py_buffer(raw)])
    return pl.Series(pl.from_arrow(ids), dtype=pl.Binary)
