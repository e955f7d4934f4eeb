"""A block of the file made ready to be written: judged, resolved, duplicates found. No transaction begins here."""

import os
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from dagster_backfills.defs.kintell import users as user_rules
from dagster_backfills.defs.kintell.parse import Parsed
from dagster_backfills.defs.kintell.rules import error_message, judge, shown
from dagster_backfills.defs.kintell.schemas import session_rows, text_rows
from dagster_backfills.defs.kintell.seen import SeenIds, hash_ids, pack

if TYPE_CHECKING:
    import numpy as np
    import polars as pl


@dataclass(frozen=True)
class Reject:
    """A row that is not imported. `values` are its fields as they stood in the file."""

    row_number: int
    message: str
    values: list[str]
    replayable: bool


@dataclass
class Batch:
    """Rows `first_row` to `last_row`: `sessions` to write, `rejects` to keep, `claimed` ids to remember.

    `values_of` gives the fields of any row by number, for those that Postgres refuses.
    """

    first_row: int
    last_row: int
    byte_from: int
    byte_to: int
    sessions: "pl.DataFrame"
    rejects: list[Reject]
    claimed: bytes
    values_of: Callable[[int], list[str]] = field(repr=False)
    position: int = 0  # of its events in the outbox: those of a later batch come after

    @property
    def rows(self) -> int:
        return self.last_row - self.first_row + 1


def prepare(
    parsed: Parsed,
    row_numbers: "np.ndarray",
    byte_range: tuple[int, int],
    values_of: Callable[[int], list[str]],
    users: user_rules.Users,
    seen: SeenIds,
    *,
    create_missing_users: bool = False,
    looks_duplicate: "Callable[[pl.DataFrame, np.ndarray], np.ndarray] | None" = None,
) -> Batch:
    """Judge parsed rows and make a batch of them. Adds the ids of the good ones to `seen`.

    `row_numbers[i]` is the number in the file of the row with index i. `looks_duplicate` may correct which rows
    `seen` takes for second occurrences.
    """
    import polars as pl

    judged = user_rules.resolve(judge(text_rows().validate(parsed.rows)), users)
    if create_missing_users:
        judged = _create_missing(judged, users)
    judged, claimed = _find_duplicates(judged, seen, looks_duplicate)
    judged = judged.with_columns(
        error_message().alias("error"), pl.Series("row_number", row_numbers[judged["row"]])
    )
    bad = judged.filter(pl.col("error").is_not_null()).select("row", "row_number", "error")
    rejects = [
        Reject(int(row_numbers[i]), problem, values_of(int(row_numbers[i])), False)
        for i, problem in parsed.broken.items()
    ]
    rejects += [Reject(number, error, values_of(number), True) for _, number, error in bad.iter_rows()]
    rejects.sort(key=lambda reject: reject.row_number)
    return Batch(
        first_row=int(row_numbers[0]) if len(row_numbers) else 0,
        last_row=int(row_numbers[-1]) if len(row_numbers) else -1,
        byte_from=byte_range[0],
        byte_to=byte_range[1],
        sessions=_sessions(judged.filter(pl.col("error").is_null())),
        rejects=rejects,
        claimed=pack(claimed),
        values_of=values_of,
    )


def _create_missing(judged: "pl.DataFrame", users: user_rules.Users) -> "pl.DataFrame":
    """Make the users that stand between a row and its import; not those of rows that are bad anyhow."""
    import polars as pl

    from dagster_backfills.defs.kintell.rules import ERROR_COLUMNS

    others = [name for name in ERROR_COLUMNS if name not in ("participant_error", "volunteer_error")]
    fine = judged.filter(
        pl.all_horizontal(pl.col(others).is_null()),
        *(~pl.col(f"{role}_error").str.starts_with("Invalid").fill_null(False) for role in user_rules.ROLES),
    )
    wanted = user_rules.missing(fine)
    if wanted.height:
        by_role = {
            role: wanted.filter(pl.col("role") == role)["email"].to_list() for role in user_rules.ROLES
        }
        users.create(by_role)
        judged = judged.drop([f"{role}_id" for role in user_rules.ROLES]).with_columns(
            pl.when(pl.col(f"{role}_error").str.starts_with(f"{role.capitalize()} not found: "))
            .then(None)
            .otherwise(pl.col(f"{role}_error"))
            .alias(f"{role}_error")
            for role in user_rules.ROLES
        )
        judged = user_rules.resolve(judged, users)
    return judged


def _find_duplicates(
    judged: "pl.DataFrame",
    seen: SeenIds,
    looks_duplicate: "Callable[[pl.DataFrame, np.ndarray], np.ndarray] | None",
) -> "tuple[pl.DataFrame, np.ndarray]":
    """Second occurrences of an id get their message. The first row that is otherwise good has the id."""
    import polars as pl

    hashes = hash_ids(judged["external_session_id"])
    before = seen.contains(hashes)
    if looks_duplicate is not None and before.any():
        before = looks_duplicate(judged, before)
    good = judged.select(error_message().is_null()).to_series()
    marked = judged.select(
        "external_session_id",
        good.alias("good"),
        pl.Series("before", before),
        pl.int_range(pl.len()).alias("at"),
    )
    winner = (
        marked.filter(pl.col("good") & ~pl.col("before"))
        .group_by("external_session_id")
        .agg(pl.col("at").min().alias("winner"))
    )
    marked = marked.join(winner, on="external_session_id", how="left", maintain_order="left")
    again = marked.select(
        (pl.col("external_session_id") != "")
        & (pl.col("before") | (pl.col("winner") < pl.col("at")).fill_null(False))
    ).to_series()
    claimed = hashes[(good & ~again).to_numpy()]
    seen.add(claimed)
    message = pl.lit("Duplicate session_id in file: ") + shown(pl.col("external_session_id"))
    return judged.with_columns(duplicate_error=pl.when(again).then(message)), claimed


def _sessions(good: "pl.DataFrame") -> "pl.DataFrame":
    import polars as pl

    frame = good.select(
        "row_number",
        pl.Series("id", rising_uuids(good.height), dtype=pl.String),
        "external_session_id",
        "session_type",
        "participant_id",
        "volunteer_id",
        "scheduled_at",
        "duration_minutes",
        "rating",
        "feedback_text",
        "language_level",
    )
    return session_rows().validate(frame)


def rising_uuids(n: int) -> list[str]:
    """`n` UUIDs of version 7: 48 bits of time, then a counter, so that they rise and the index grows at its end."""
    import numpy as np

    if n == 0:
        return []
    raw = np.frombuffer(os.urandom(16 * n), np.uint8).reshape(n, 16).copy()
    now = int(time.time() * 1000)
    count = np.arange(n, dtype=np.uint32)
    raw[:, :6] = np.frombuffer(now.to_bytes(6, "big"), np.uint8)
    raw[:, 6] = 0x70 | ((count >> 22) & 0x0F)
    raw[:, 7] = (count >> 14) & 0xFF
    raw[:, 8] = 0x80 | ((count >> 8) & 0x3F)
    raw[:, 9] = count & 0xFF
    text = raw.tobytes().hex()
    return [text[i : i + 32] for i in range(0, len(text), 32)]
