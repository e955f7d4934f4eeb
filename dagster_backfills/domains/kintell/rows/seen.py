"""Detects session IDs that occurred earlier in the file. Not here: how a repeated ID is handled (`batches`).

An import relies on the database's unique index, and keeps only the IDs of its last batches in memory, because those may
not be committed yet. A dry run writes nothing, so it keeps a hash of every ID. The probability that two of n different
IDs share a hash is about n² / 2⁶⁵: one in four hundred thousand for ten million rows.
"""

from collections import deque
from uuid import UUID

import numpy as np
import polars as pl
import psycopg

from dagster_backfills.domains.kintell.statements import STATEMENTS


class SettledIds:
    """IDs that an import has processed: from memory for the last `batches` batches, from the database for bad rows."""

    def __init__(self, conn: psycopg.Connection, job: UUID, batches: int) -> None:
        self._conn, self._job = conn, job
        self._last: deque[pl.Series] = deque(maxlen=batches)

    def add(self, ids: pl.Series) -> None:
        self._last.append(ids)

    def contains(self, ids: pl.Series, good: pl.Series) -> pl.Series:
        """A boolean for each ID. `good` marks rows that will be written: the database detects their duplicates."""
        bad = ids.filter(~good).unique().to_list()
        settled = [session_id for (session_id,) in STATEMENTS.settled_ids(self._conn, job=self._job, ids=bad)]
        known = pl.concat([pl.Series(settled, dtype=pl.String), *self._last])
        return ids.is_in(known.implode())


class SeenIds:
    """All IDs so far, as sorted 8-byte hashes."""

    def __init__(self) -> None:
        self._hashes = np.empty(0, np.uint64)

    def add(self, ids: pl.Series) -> None:
        self._hashes = np.sort(np.concatenate([self._hashes, np.sort(_hashes(ids))]), kind="stable")

    def contains(self, ids: pl.Series, good: pl.Series) -> pl.Series:
        hashes, known = _hashes(ids), self._hashes
        at = np.searchsorted(known, hashes)
        return pl.Series(known[np.minimum(at, len(known) - 1)] == hashes if len(known) else at > 0)


Seen = SettledIds | SeenIds


def _hashes(ids: pl.Series) -> np.ndarray:
    return ids.hash(seed=1).to_numpy()
