"""Which session ids a file has had so far, as 64-bit hashes. Not here: what happens to a second occurrence.

Two different ids among n share a hash with a probability of about n² / 2⁶⁵ (one in four hundred thousand for ten
million rows). Such a row is rejected as a duplicate, and imported by a replay, which looks the id itself up.
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np
    import polars as pl

MAX_RUN = 1_000_000


def hash_ids(ids: "pl.Series") -> "np.ndarray":
    """A hash of each id that is the same in every process and on every machine."""
    import numpy as np
    from pandas.util import hash_array

    if not len(ids):
        return np.empty(0, np.uint64)
    return hash_array(np.asarray(ids.to_list(), dtype=object), categorize=False).astype(np.uint64)


def pack(hashes: "np.ndarray") -> bytes:
    """Hashes as the database keeps them: 8 bytes each, little endian."""
    return bytes(hashes.astype("<u8").tobytes())


def unpack(data: bytes) -> "np.ndarray":
    import numpy as np

    return np.frombuffer(data, "<u8").astype(np.uint64)


class SeenIds:
    """A set of hashes in 8 bytes each: sorted runs, merged while they are small."""

    def __init__(self) -> None:
        self._runs: list[Any] = []

    def add(self, hashes: "np.ndarray") -> None:
        import numpy as np

        if not len(hashes):
            return
        run = np.sort(hashes)
        while (
            self._runs and len(self._runs[-1]) <= 2 * len(run) and len(self._runs[-1]) + len(run) <= MAX_RUN
        ):
            run = np.sort(np.concatenate([self._runs.pop(), run]), kind="stable")
        self._runs.append(run)

    def contains(self, hashes: "np.ndarray") -> "np.ndarray":
        """A boolean for each of `hashes`."""
        import numpy as np

        found = np.zeros(len(hashes), bool)
        order = np.argsort(hashes)
        wanted = hashes[order]
        for run in self._runs:
            at = np.minimum(np.searchsorted(run, wanted), len(run) - 1)
            found |= run[at] == wanted
        out = np.empty_like(found)
        out[order] = found
        return out
