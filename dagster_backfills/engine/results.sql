-- What became of runs, by the engine's own account. Each statement runs in psql; nothing is written.

-- name: tables
-- What they wrote, by table in the order in which that began.
select
    b.asset as "table",
    (
        select count(distinct p.partition)
        from backfill.batches as bb
        cross join lateral unnest(bb.partitions) as p (partition)
        where bb.run_id = any(:run_ids::text[]) and bb.asset = b.asset
    ) as partitions,
    sum(b.units)::bigint as units,
    sum(b.rows_inserted)::bigint as inserted,
    sum(b.rows_updated)::bigint as updated,
    sum(b.rows_deleted)::bigint as deleted,
    sum(b.rows_unchanged)::bigint as unchanged,
    sum(b.failures)::bigint as failed
from backfill.batches as b
where b.run_id = any(:run_ids::text[])
group by b.asset
order by min(b.committed_at), b.asset;

-- name: failures
-- What they could not write and nobody has since, the first first.
select f.asset, f.partition, f.unit, f.message, f.attempts
from backfill.failures as f
where f.run_id = any(:run_ids::text[]) and f.resolved_at is null
order by f.first_seen, f.id;

-- name: newest_runs
-- The newest runs that wrote these tables.
select
    r.run_id, r.outcome, r.partitions, r.units, r.started_at, r.finished_at, r.undoes
from backfill.runs as r
where r.assets && :assets::text[]
order by r.started_at desc
limit :max_rows;

-- name: last_change$
-- The run that changed these tables last. Not an undo, which is meant by its id alone: one that was killed is given again
-- in the same words.
select b.run_id
from backfill.batches as b
inner join backfill.runs as r on b.run_id = r.run_id and b.step = r.step
where
    b.asset = any(:assets::text[])
    and b.rows_inserted + b.rows_updated + b.rows_deleted > 0
    and r.undoes is null
order by b.committed_at desc
limit 1;

-- name: unfinished
-- Runs that write these tables, and have not said that they ended.
select r.run_id
from backfill.runs as r
where r.finished_at is null and r.assets && :assets::text[];

-- name: steps
-- How far the steps of a run are.
select
    p.step, array_to_string(p.assets, ', ') as assets, p.partitions_total, p.partitions_done, p.units_total,
    p.units_done, p.failures, p.units_per_second, p.time_left
from backfill.run_progress as p
where p.run_id = :run_id
order by p.started_at, p.step;
