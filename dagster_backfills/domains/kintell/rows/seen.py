"""Which session ids a file has had, as far as the worker knows it. Not here: what happens to a second occurrence.

An import asks the database, whose unique index has every id that it settled; it knows only its last batches by
itself, those that may not be committed yet. A dry run writes nothing that it could ask, and keeps hashes: two
different ids among n share one with a probability of about n² / 2⁶⁵, one in four hundred thousand for ten million.
"""

from collections import deque
from uuid import UUID

import numpy as np
import polars as pl
import psycopg

from dagster_backfills.domains.kintell.statements import STATEMENTS


class SettledIds:
    """Ids that a job has settled: those of its last `batches` batches, and for bad rows whatever the database has."""

    def __init__(self, conn: psycopg.Connection, job: UUID, batches: int) -> None:
        self._conn, self._job = conn, job
        self._last: deque[pl.Series] = deque(maxlen=batches)

    def add(self, ids: pl.Series) -> None:
        self._last.append(ids)

    def contains(self, ids: pl.Series, good: pl.Series) -> pl.Series:
        """A boolean for each of `ids`. `good` says which rows will be written, and so be judged by the database."""
        bad = ids.filter(~good).unique().to_list()
        settled = [found for (found,) in STATEMENTS.settled_ids(self._conn, job=self._job, ids=bad)]
        known = pl.concat([pl.Series(settled, dtype=pl.String), *self._last])
        return ids.is_in(known.implode())


class SeenIds:
    """All ids so far, as hashes of 8 bytes each, in their order."""

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
