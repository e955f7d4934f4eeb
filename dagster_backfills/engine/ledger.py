"""The engine's records: `backfill.runs`, `backfill.batches` and the failure ledger `backfill.failures`.

Everything about a batch is written in the batch's own transaction.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any
from uuid import UUID

import psycopg
from psycopg import sql

from dagster_backfills.engine.model import WHOLE, Query
from dagster_backfills.engine.outcome import Counts, Failure
from dagster_backfills.engine.run_identity import RunIdentity
from dagster_backfills.engine.table.arrays import text_array

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

# What earlier attempts of this step finished, for exactly these assets: each output of a step is recorded separately.
# An attempt is an earlier try of the same run (a retried step) or, if the run resumes, any run with the same root.
_FINISHED = """
select
    p.partition,
    -- Units are processed in the order of this collation, whatever the database's default is.
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

_OPEN = """
where resolved_at is null and asset = %(asset)s
    and (partition = any(%(partitions)s::text[]) or (%(whole)s and partition is null))
"""
_ANY_OPEN = f"select from backfill.failures {_OPEN} limit 1"
_RESOLVE = f"""
update backfill.failures set resolved_at = clock_timestamp() {_OPEN}
    and (%(units)s::text[] is null or unit = any(%(units)s::text[]))
"""  # noqa: S608
_OWNED = " and unit in (select q.unit from ({}) as q)"

# Open entries of a partition that was written slice by slice. Failures of this run and of runs with the same root stay
# open. Older entries belong to units that are no longer due.
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
    """What earlier attempts finished.

    partitions: the finished ones. reached: for each unfinished partition the last unit written, and the oldest snapshot
    that an attempt listed its units with.
    """

    partitions: set[str] = field(default_factory=set)
    reached: dict[str, tuple[str, str]] = field(default_factory=dict)


def start(
    conn: psycopg.Connection, run: RunIdentity, assets: Sequence[str], partitions: int, units: int | None
) -> None:
    """Inserts the run's row, or reopens it for a retried step. units: the total, if known."""
    binds = {"assets": list(assets), "partitions": partitions, "units": units}
    conn.execute(_START, {**run.binds, **binds})


def finish(conn: psycopg.Connection, run: RunIdentity, outcome: str) -> None:
    """Closes the run's row and commits. outcome: `succeeded`, `failed` or `interrupted`."""
    conn.execute(_FINISH, {**run.binds, "outcome": outcome})
    conn.commit()


def prior_work(conn: psycopg.Connection, run: RunIdentity, assets: Sequence[str]) -> PriorWork:
    """Returns what earlier attempts have written of these assets, so that it is not written again."""
    prior = PriorWork()
    binds = {**run.binds, "assets": list(dict.fromkeys(assets))}
    for partition, upto, whole, snapshot in conn.execute(_FINISHED, binds):
        if whole:
            prior.partitions.add(partition)
        elif upto is not None:
            prior.reached[partition] = upto, snapshot
    conn.commit()
    return prior


def record_batch(conn: psycopg.Connection, run: RunIdentity, counts: Counts, **columns: Any) -> None:
    """Records one asset's part of a batch. columns: the other columns of `backfill.batches`."""
    conn.execute(_BATCH, {**run.binds, **vars(counts), **columns})


def batch_is_recorded(conn: psycopg.Connection, batch_id: UUID) -> bool:
    """Whether the batch was committed. For a connection that was lost during the commit."""
    row = conn.execute("select 1 from backfill.batches where batch_id = %s limit 1", [batch_id]).fetchone()
    conn.commit()
    return row is not None


def record_failure(conn: psycopg.Connection, run: RunIdentity, failure: Failure) -> None:
    """Adds a failure to the ledger; if it has an open entry, updates that and counts one more attempt."""
    conn.execute(_FAILED, {**run.binds, **vars(failure)})


def clear_stale(conn: psycopg.Connection, asset: str, partitions: Sequence[str], snapshot: str) -> None:
    """Deletes stale marks of changes that are visible to this snapshot."""
    conn.execute(_CLEAR, {"asset": asset, "partitions": list(partitions), "snapshot": snapshot})


def resolve(
    conn: psycopg.Connection,
    asset: str,
    partitions: Sequence[str],
    units: Sequence[str] | None = None,
    owned: Query | None = None,
) -> None:
    """Resolves open failures of partitions that were just written whole, or of some of their units.

    owned: resolves only units that this query lists.
    """
    whole = list(partitions) == [WHOLE]
    keys = [] if whole else list(partitions)
    binds: dict[str, Any] = {"asset": asset, "partitions": keys, "whole": whole}
    # Most batches have nothing to resolve, and thousands of units take long to plan for.
    if conn.execute(_ANY_OPEN, binds).fetchone() is not None:
        conn.execute(*_narrowed(_RESOLVE, {**binds, "units": text_array(units)}, owned))


def resolve_rest(
    conn: psycopg.Connection, run: RunIdentity, asset: str, partition: str, owned: Query | None = None
) -> int:
    """Resolves failures of units that are no longer due, after a partition's last slice.

    Returns the number of units that remain failed.
    """
    binds = {"asset": asset, "partition": partition or None, "root": run.root}
    conn.execute(*_narrowed(_RESOLVE_REST, binds, owned))
    row = conn.execute(*_narrowed(_OPEN_UNITS, binds, owned)).fetchone()
    return row[0] if row else 0


def _narrowed(
    statement: str, binds: dict[str, Any], owned: Query | None
) -> tuple[sql.Composed, dict[str, Any]]:
    """Restricts a statement on failures to the units that the query `owned` lists."""
    text = sql.SQL(statement)
    if owned is None:
        return sql.Composed([text]), binds
    of_owned = sql.SQL(_OWNED).format(sql.SQL(owned.sql))
    return text + of_owned, {**binds, **owned.params}
