"""The failure ledger and the account of batches: tables `backfill.failures`, `backfill.batches`, `backfill.runs`.

Everything about a batch is written in the batch's own transaction.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any
from uuid import UUID

import psycopg
from psycopg import sql
from psycopg.types.json import Jsonb

from dagster_backfills.engine.model import WHOLE, Query
from dagster_backfills.engine.outcome import Counts, Failure
from dagster_backfills.engine.table.arrays import text_array


@dataclass(frozen=True)
class RunIdentity:
    """Which Dagster run and step this is, and which run it goes on from (`resumes`: that run's root).

    undoes: the run that this one undoes. started_by: who launched it, or what.
    """

    run_id: str
    step: str = ""
    root_run_id: str = ""
    resumes: bool = False
    undoes: str | None = None
    started_by: str = ""

    @property
    def root(self) -> str:
        return self.root_run_id or self.run_id

    @property
    def binds(self) -> dict[str, Any]:
        return {**vars(self), "root": self.root}


_START = """
insert into backfill.runs (run_id, step, root_run_id, assets, partitions, units, undoes, started_by)
values (%(run_id)s, %(step)s, %(root)s, %(assets)s, %(partitions)s, %(units)s, %(undoes)s, %(started_by)s)
on conflict (run_id, step) do update
set outcome = 'running', finished_at = null, partitions = excluded.partitions, units = excluded.units,
    assets = runs.assets || array(select a from unnest(excluded.assets) as a where a <> all(runs.assets))
"""

_FINISH = """
update backfill.runs set outcome = %(outcome)s, finished_at = clock_timestamp()
where run_id = %(run_id)s and step = %(step)s
"""

# What earlier tries of this step finished of these assets, and of all of them: another output of the step has its own
# account. Tries are the same run's own (a retried step), or all of its root's.
_FINISHED = """
select
    p.partition,
    -- In the order that units are worked in, whatever the database's own.
    max(b.units_upto collate "C"),
    count(distinct b.asset) filter (where b.units_upto is null) = cardinality(%(assets)s::text[]),
    (array_agg(b.snapshot::text order by pg_snapshot_xmin(b.snapshot), pg_snapshot_xmax(b.snapshot)))[1]
from backfill.batches as b
inner join backfill.runs as r on b.run_id = r.run_id and b.step = r.step
cross join lateral unnest(b.partitions) as p (partition)
where r.step = %(step)s and b.asset = any(%(assets)s::text[])
    and (r.run_id = %(run_id)s or (%(resumes)s and r.root_run_id = %(root)s))
group by p.partition
"""

_BATCH = """
insert into backfill.batches (
    batch_id, asset, run_id, step, partitions, units_upto, snapshot, units, rows_inserted, rows_updated,
    rows_unchanged, rows_deleted, failures, seconds, journal_id, journal
) values (
    %(batch_id)s, %(asset)s, %(run_id)s, %(step)s, %(partitions)s, %(units_upto)s,
    %(snapshot)s::pg_snapshot, %(units)s,
    %(inserted)s, %(updated)s, %(unchanged)s, %(deleted)s, %(failed_units)s, %(seconds)s,
    %(journal_id)s, %(journal)s
)
"""

_FAILED = """
insert into backfill.failures (run_id, asset, partition, unit, error_class, sqlstate, message)
values (%(run_id)s, %(asset)s, %(partition)s, %(unit)s, %(error_class)s, %(sqlstate)s, %(message)s)
on conflict (asset, partition, unit) where resolved_at is null do update
set run_id = excluded.run_id, error_class = excluded.error_class, sqlstate = excluded.sqlstate,
    message = excluded.message, last_seen = clock_timestamp(), attempts = failures.attempts + 1
"""

_RESOLVE = """
update backfill.failures set resolved_at = clock_timestamp()
where resolved_at is null and asset = %(asset)s
    and (partition = any(%(partitions)s::text[]) or (%(whole)s and partition is null))
    and (%(units)s::text[] is null or unit = any(%(units)s::text[]))
"""
_OWNED = " and unit in (select q.unit from ({}) as q)"

# What a partition that was written slice by slice still has open: what this run, or one that it goes on from, could
# not write stays; older entries are of units that are due no more.
_RESOLVE_REST = """
update backfill.failures as f set resolved_at = clock_timestamp()
where f.resolved_at is null and f.asset = %(asset)s and f.partition is not distinct from %(partition)s
    and (f.unit is null or not exists (
        select from backfill.runs as r where r.run_id = f.run_id and r.root_run_id = %(root)s
    ))
"""

_OPEN_UNITS = """
select count(*) from backfill.failures
where resolved_at is null and asset = %(asset)s and partition is not distinct from %(partition)s and unit is not null
"""

_CLEAR = "select backfill.clear_stale(%(asset)s, %(partitions)s::text[], %(snapshot)s::pg_snapshot)"


@dataclass
class PriorWork:
    """What earlier tries finished: whole partitions, and how far they came in those that they left half done.

    upto: of these the last unit, and the oldest snapshot that a try listed their units by.
    """

    partitions: set[str] = field(default_factory=set)
    upto: dict[str, tuple[str, str]] = field(default_factory=dict)


def start(
    conn: psycopg.Connection, run: RunIdentity, assets: Sequence[str], partitions: int, units: int | None
) -> None:
    """Open the run's account, or the same again for a step that is tried again."""
    binds = {"assets": list(assets), "partitions": partitions, "units": units}
    conn.execute(_START, {**run.binds, **binds})


def finish(conn: psycopg.Connection, run: RunIdentity, outcome: str) -> None:
    """Close the run's account: `succeeded`, `failed` or `interrupted`."""
    conn.execute(_FINISH, {**run.binds, "outcome": outcome})
    conn.commit()


def prior_work(conn: psycopg.Connection, run: RunIdentity, assets: Sequence[str]) -> PriorWork:
    """What of these assets need not be written again."""
    prior = PriorWork()
    binds = {**run.binds, "assets": list(dict.fromkeys(assets))}
    for partition, upto, whole, snapshot in conn.execute(_FINISHED, binds):
        if whole:
            prior.partitions.add(partition)
        elif upto is not None:
            prior.upto[partition] = upto, snapshot
    conn.commit()
    return prior


def record_batch(
    conn: psycopg.Connection,
    run: RunIdentity,
    batch_id: UUID,
    asset: str,
    partitions: Sequence[str],
    counts: Counts,
    *,
    units: int,
    seconds: float,
    snapshot: str,
    units_upto: str | None = None,
    journal_id: int | None = None,
    journal: Mapping[str, Any] | None = None,
) -> None:
    """Account for one asset's share of a batch."""
    conn.execute(
        _BATCH,
        {**run.binds, **vars(counts), "batch_id": batch_id, "asset": asset, "partitions": list(partitions),
         "units_upto": units_upto, "snapshot": snapshot, "units": units, "seconds": seconds,
         "journal_id": journal_id, "journal": Jsonb(journal) if journal_id is not None else None},
    )  # fmt: skip


def batch_is_recorded(conn: psycopg.Connection, batch_id: UUID) -> bool:
    """Whether a batch whose commit was cut off had been committed after all."""
    row = conn.execute("select 1 from backfill.batches where batch_id = %s limit 1", [batch_id]).fetchone()
    conn.commit()
    return row is not None


def record_failure(conn: psycopg.Connection, run: RunIdentity, failure: Failure) -> None:
    """Enter a failing unit, or count one more attempt where it is entered already."""
    conn.execute(_FAILED, {**run.binds, **vars(failure)})


def clear_stale(conn: psycopg.Connection, asset: str, partitions: Sequence[str], snapshot: str) -> None:
    """Take away the marks of changes that a computation with this snapshot has seen."""
    conn.execute(_CLEAR, {"asset": asset, "partitions": list(partitions), "snapshot": snapshot})


def resolve(
    conn: psycopg.Connection,
    asset: str,
    partitions: Sequence[str],
    units: Sequence[str] | None = None,
    owned: Query | None = None,
) -> None:
    """Close the open entries of partitions that have just been written whole, or of some of their units."""
    whole = list(partitions) == [WHOLE]
    keys = [] if whole else list(partitions)
    binds = {"asset": asset, "partitions": keys, "whole": whole, "units": text_array(units)}
    conn.execute(*_narrowed(_RESOLVE, binds, owned))


def resolve_rest(
    conn: psycopg.Connection, run: RunIdentity, asset: str, partition: str, owned: Query | None = None
) -> int:
    """Close what is left of a partition whose slices are all through. Returns how many units of it failed."""
    binds = {"asset": asset, "partition": partition or None, "root": run.root}
    conn.execute(*_narrowed(_RESOLVE_REST, binds, owned))
    row = conn.execute(*_narrowed(_OPEN_UNITS, binds, owned)).fetchone()
    return row[0] if row else 0


def _narrowed(
    statement: str, binds: dict[str, Any], owned: Query | None
) -> tuple[sql.Composed, dict[str, Any]]:
    """A statement on entries, and its binds, for the units that a write is about."""
    text = sql.SQL(statement)
    if owned is None:
        return sql.Composed([text]), binds
    of_owned = sql.SQL(_OWNED).format(sql.SQL(owned.sql))
    return text + of_owned, {**binds, **owned.params}
