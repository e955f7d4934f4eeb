"""Undoing a run by its journal: what it added is removed, what it changed or removed is put back, if it is still so.

A run of the engine like any other, over writes whose source is the journal: batches, resumption, account, ledger and
its own journal follow. Not here: how the rows are changed (`table/restore`).
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import psycopg

from dagster_backfills.engine import audit, ledger
from dagster_backfills.engine.journal import Shape
from dagster_backfills.engine.ledger import RunIdentity
from dagster_backfills.engine.model import Query, Target, Write
from dagster_backfills.engine.outcome import Counts
from dagster_backfills.engine.plan import Report, rehearse
from dagster_backfills.engine.prepared import PreparedWrite
from dagster_backfills.engine.rehearsal import Example
from dagster_backfills.engine.runner import Connect, Runner
from dagster_backfills.engine.settings import EngineSettings
from dagster_backfills.engine.table.address import ByQuery
from dagster_backfills.engine.table.catalog import read_table
from dagster_backfills.engine.table.restore import Restore
from dagster_backfills.engine.table.slice import Slice
from dagster_backfills.errors import UserError

# A unit is a row: how far the last of its entries is from here, so that the last come first, and the first of them.
_END = 2**63 - 1
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
_RUNS = """
select r.run_id, r.undoes, r.finished_at is null
from backfill.runs as r where starts_with(r.run_id, %(run_id)s) order by r.started_at
"""
_LATEST = "select distinct on (started_at) run_id from backfill.runs order by started_at desc limit 3"
_UNDOES = "select undoes from backfill.runs where run_id = %s limit 1"
_WRITTEN = """
select b.asset, b.journal, sum(b.rows_inserted + b.rows_updated + b.rows_deleted)::bigint
from backfill.batches as b where b.run_id = %s
group by b.asset, b.journal having sum(b.rows_inserted + b.rows_updated + b.rows_deleted) > 0
order by min(b.committed_at), b.asset
"""
_ORDER = "select a from backfill.runs, unnest(assets) with ordinality as u (a, n) where run_id = %s order by step, n"
_PARTITIONS = """
select p from backfill.batches, unnest(partitions) as p where run_id = %s group by p order by max(committed_at) desc, p
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
    """A run that is to be undone: its tables and its partitions, the last ones first.

    redoes: the run was an undo itself, so that what comes back is what automation may go on with.
    unfinished: its account is open: it is at work, or was killed.
    """

    run_id: str
    shapes: dict[str, list[Shape]]
    partitions: list[str]
    redoes: bool
    unfinished: bool

    def prepare(self, run_id: str) -> Callable[[psycopg.Connection[Any]], list[PreparedWrite]]:
        """The writes that undo it, in the name of a run. Raises UserError for a table that was altered since."""

        def prepared(conn: psycopg.Connection[Any]) -> list[PreparedWrite]:
            return [UndoWrite.of(conn, self, asset, run_id) for asset in self.shapes]

        return prepared


def find(conn: psycopg.Connection[Any], run_id: str, partitions: Sequence[str] = ()) -> Undoing:
    """The run of this id, or of an id that begins so. Raises UserError where it can't be undone, or not there."""
    found = {row[0]: row[1:] for row in conn.execute(_RUNS, {"run_id": run_id})} if run_id else {}
    if len(found) != 1:
        latest = ", ".join(row[0] for row in conn.execute(_LATEST))
        what = f"{len(found)} runs begin" if found else "No run begins"
        raise UserError(
            f"{what} with {run_id!r}.", f"The latest are {latest}." if latest else "Nothing has run."
        )
    ((run_id, (undoes, unfinished)),) = found.items()
    written: dict[str, list[Shape]] = {}
    for asset, noted, rows in conn.execute(_WRITTEN, [run_id]):
        if noted is None:
            raise UserError(
                f"Run {run_id} changed {rows:,} rows of {asset} of which the journal says nothing.",
                hint="It was switched off for that table, the table has no key, or its days are over.",
            )
        written.setdefault(asset, []).append(Shape.read(noted))
    order = [row[0] for row in conn.execute(_ORDER, [run_id])]
    there = [row[0] for row in conn.execute(_PARTITIONS, [run_id])]
    strangers = [key for key in partitions if key not in there]
    if strangers:
        raise UserError(f"Run {run_id} has written no partition {strangers[0]!r}.", _some(there))
    redoes = False
    while undoes is not None:
        redoes = not redoes
        undoes = (conn.execute(_UNDOES, [undoes]).fetchone() or (None,))[0]
    conn.rollback()
    shapes = {asset: written[asset] for asset in reversed(order) if asset in written}
    chosen = [key for key in there if not partitions or key in partitions]
    return Undoing(run_id, shapes, chosen, redoes, unfinished)


def preview(
    connect: Connect,
    undoing: Undoing,
    settings: EngineSettings | None = None,
    log: Callable[[str], None] = lambda line: None,
) -> Report:
    """What undoing would do; `unchanged` are rows that are kept, because they were changed since."""
    if not undoing.shapes:
        return Report.nothing()
    prepare = undoing.prepare("")
    return rehearse(connect, settings, log, lambda runner: runner.run_prepared(prepare, undoing.partitions))


def undo(runner: Runner, undoing: Undoing) -> Iterator[list[str]]:
    """Undo it, yielding the partitions that are through. The runner's identity says what is undone: `undo_identity`."""
    identity = runner.run_identity
    with runner.connect() as conn:
        domains = audit.domains_of(list(undoing.shapes))
        audit.record(
            conn,
            audit.Entry(identity.started_by, "undo", undoing.run_id, domains, "started", [identity.run_id]),
        )
        conn.commit()
        if not undoing.shapes:  # of a run that changed nothing there is an account all the same
            ledger.start(conn, identity, [], 0, None)
            ledger.finish(conn, identity, "succeeded")
            return
    yield from runner.run_prepared(undoing.prepare(identity.run_id), undoing.partitions)


def undo_identity(
    undoing: Undoing, run_id: str, root_run_id: str = "", *, resumes: bool = False, started_by: str = ""
) -> RunIdentity:
    """The identity of a run that undoes another."""
    return RunIdentity(run_id, "undo", root_run_id, resumes, undoing.run_id, started_by)


@dataclass
class UndoWrite(PreparedWrite):
    """One table of a run, back to what stood before."""

    undoing: Undoing = field(kw_only=True)
    run_id: str = field(kw_only=True)

    @classmethod
    def of(cls, conn: psycopg.Connection[Any], undoing: Undoing, asset: str, run_id: str) -> "UndoWrite":
        """Raises UserError where the table was altered since."""
        shapes = undoing.shapes[asset]
        shape = shapes[0]
        table = read_table(conn, shape.schema, shape.name)
        for each in shapes:
            each.refuse_altered(table)
        target = Target(asset, unit="entry", table=(shape.schema, shape.name), touched=shape.touched)
        units = Query(_UNITS, {"undone": undoing.run_id, "assets": list(undoing.shapes)})
        write = Write(target, Query(""), units=units)
        by = ByQuery("partition")
        return cls(write, table, by, "", journals=True, undoing=undoing, run_id=run_id)

    def attach(self, conn: psycopg.Connection[Any]) -> None:
        """Nothing is needed."""

    def run(self, conn: psycopg.Connection[Any], slice_: Slice) -> dict[str, Counts]:
        counts = {key: Counts() for key in slice_.keys}
        units = slice_.units
        self._binds = {
            **slice_.binds(self.address), "undone": self.undoing.run_id, "asset": self.asset,
            **_binds([] if units is None else units),
        }  # fmt: skip
        statement = self._restore.statement(slices=units is not None)
        for key, given, inserted, updated, deleted, _ in conn.execute(statement, self._binds, prepare=False):
            kept = given - inserted - updated - deleted
            counts[key].add(Counts(inserted, updated, kept, deleted))
        return counts

    def kept_examples(self, conn: psycopg.Connection[Any], room: int) -> list[Example]:
        """Rows of the last slice that stay because they were changed since: as they were before the run, and now."""
        statement = self._restore.kept(slices=bool(self._binds["entries"]))
        rows = conn.execute(statement, {**self._binds, "room": room}, prepare=False)
        return [Example.of(self, key, "kept", before, after) for key, before, after in rows]

    def settle(self, conn: psycopg.Connection[Any], keys: Sequence[str], *, whole: bool) -> None:
        """Take away the marks that these very changes have made; leave the partitions alone from now on, or, where they
        are again what a run had left, look at them once more."""
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
    """The last and the first entry of each row, and the rows of the journal that they lie in."""
    entries = [
        entry
        for last, first in (unit.split("-") for unit in units)
        for entry in (_END - int(last), int(first))
    ]
    return {"entries": entries, "chunks": sorted({entry >> 20 for entry in entries})}


def _some(there: Sequence[str]) -> str:
    return f"It has written {', '.join(there[:5])}{', …' if len(there) > 5 else ''}."
