"""The writes of an undo: one for each table of the undone run. Their units are rows, identified by journal entries.

Not here: finding the run (`undo`), the SQL that restores rows (`table/restore`).
"""

from collections.abc import Collection, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import psycopg

from dagster_backfills.engine.journal import Shape
from dagster_backfills.engine.model import Query, Target, Write
from dagster_backfills.engine.outcome import Counts
from dagster_backfills.engine.prepared import PreparedWrite
from dagster_backfills.engine.rehearsal import Example
from dagster_backfills.engine.table.address import ByQuery
from dagster_backfills.engine.table.catalog import read_table
from dagster_backfills.engine.table.restore import Restore
from dagster_backfills.engine.table.slice import Slice

# A unit is a row. Its key is the ID of its last journal entry, subtracted from this number so that the latest changes
# are undone first, and the ID of its first entry.
_END = 2**63 - 1
# The low bits of an entry's ID (see the view `backfill.journal_entries`): its position in the row of the journal.
_CHUNK_BITS = 20
_UNITS = """
select j.partition, lpad((9223372036854775807 - max(j.id))::text, 19, '0') || '-' || min(j.id) as unit
from backfill.batches as b
inner join backfill.journal_entries as j on b.journal_id = j.journal_id
where b.run_id = %(undone)s and b.asset = any(%(assets)s::text[]) and j.partition = any(%(partition_keys)s::text[])
group by b.asset, j.partition, j.key
"""
_KEY = """
select j.key from backfill.journal_entries as j
where j.chunk = any(%(chunks)s::bigint[]) and j.id = any(%(entries)s::bigint[]) limit 1
"""
# An undo resolves only failures of undo runs. Rows that it removes do not resolve the failures of other runs.
_OWN_FAILURES = """
select f.unit from backfill.failures as f where f.run_id in (select r.run_id from backfill.runs as r where undoes <> '')
"""
_SETTLE = "select backfill.clear_stale(%(asset)s, %(keys)s::text[], '1:1:')"
_UNDONE = """
insert into backfill.undone (asset, partition, run_id)
select %(asset)s, k, %(run_id)s from unnest(%(keys)s::text[]) as k
on conflict (asset, partition) do update set run_id = excluded.run_id, undone_at = clock_timestamp()
"""
_STALE = "select backfill.mark_stale(%(asset)s, %(keys)s::text[])"


@dataclass(frozen=True)
class Undoing:
    """A run to undo, with its tables and partitions, latest first.

    redoes: the run is itself an undo, so undoing it restores rows that automation may refresh again.
    unfinished: the run's record is open: it is still running, or was killed.
    """

    run_id: str
    shapes: dict[str, list[Shape]]
    partitions: list[str]
    redoes: bool
    unfinished: bool

    def only(self, assets: Collection[str]) -> "Undoing":
        """The same run, restricted to these of its tables."""
        return replace(self, shapes={asset: each for asset, each in self.shapes.items() if asset in assets})

    def writes(self, conn: psycopg.Connection[Any], run_id: str) -> list[PreparedWrite]:
        """Makes the writes for the undo `run_id`. Raises UserError if a table was altered since the run."""
        return [UndoWrite.of(conn, self, asset, run_id) for asset in self.shapes]


@dataclass
class UndoWrite(PreparedWrite):
    """Restores one table of a run."""

    undoing: Undoing = field(kw_only=True)
    run_id: str = field(kw_only=True)

    @classmethod
    def of(cls, conn: psycopg.Connection[Any], undoing: Undoing, asset: str, run_id: str) -> "UndoWrite":
        """Makes the write. Raises UserError if the table was altered since the run."""
        shapes = undoing.shapes[asset]
        shape = shapes[0]
        table = read_table(conn, shape.schema, shape.name)
        for each in shapes:
            each.check_unaltered(table)
        target = Target(asset, unit="entry", table=(shape.schema, shape.name), touched=shape.touched)
        units = Query(_UNITS, {"undone": undoing.run_id, "assets": list(undoing.shapes)})
        by = ByQuery("partition")
        write = Write(target, Query(""), units=units, owned=Query(_OWN_FAILURES), address=by)
        return cls(write, table, "", journals=True, undoing=undoing, run_id=run_id)

    def attach(self, conn: psycopg.Connection[Any]) -> None:
        """Does nothing: there is no frame to stage and no query to plan."""

    def run(self, conn: psycopg.Connection[Any], slice_: Slice) -> dict[str, Counts]:
        counts = {key: Counts() for key in slice_.keys}
        units = slice_.units
        self._binds = {
            **slice_.binds(self.address), "undone": self.undoing.run_id, "asset": self.asset,
            **_binds([] if units is None else units),
        }  # fmt: skip
        statement = self._restore.statement(slices=units is not None)
        for key, rows, inserted, updated, deleted, *_ in conn.execute(statement, self._binds, prepare=False):
            kept = rows - inserted - updated - deleted
            counts[key].add(Counts(inserted, updated, kept, deleted))
        return counts

    def kept_examples(self, conn: psycopg.Connection[Any], limit: int) -> list[Example]:
        """Rows of the last slice that are kept because they have changed since: before the run, and now."""
        statement = self._restore.kept(slices=bool(self._binds["entries"]))
        rows = conn.execute(statement, {**self._binds, "limit": limit}, prepare=False)
        return [Example.of(self, key, "kept", before, after) for key, before, after in rows]

    def settle(self, conn: psycopg.Connection[Any], keys: Sequence[str], *, whole: bool) -> None:
        """Clears stale marks that the undo's own changes made. Then records the partitions as undone, so that
        automation skips them; or, if the undo of an undo restored them, marks them stale."""
        binds = {"asset": self.asset, "keys": list(keys), "run_id": self.run_id}
        conn.execute(_SETTLE, binds)
        if whole:
            conn.execute(_STALE if self.undoing.redoes else _UNDONE, binds)

    def name_of(self, conn: psycopg.Connection[Any], unit: str) -> str:
        row = conn.execute(_KEY, _binds([unit])).fetchone()
        return ", ".join(row[0]) if row else unit

    @property
    def _restore(self) -> Restore:
        return Restore(self.table, self.write.target.touched)


def _binds(units: Sequence[str]) -> dict[str, list[int]]:
    """The first and last entry of each unit, and the rows of the journal that contain them."""
    entries = [
        entry
        for last, first in (unit.split("-") for unit in units)
        for entry in (_END - int(last), int(first))
    ]
    return {"entries": entries, "chunks": sorted({entry >> _CHUNK_BITS for entry in entries})}
