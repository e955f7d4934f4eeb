-- Results of runs, from the engine's own records. Each statement is read-only and also runs in psql.

-- name: tables
-- Rows written by table, in the order in which the tables were first written.
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
-- Open failures of these runs, oldest first.
select f.asset, f.partition, f.unit, f.message, f.attempts
from backfill.failures as f
where f.run_id = any(:run_ids::text[]) and f.resolved_at is null
order by f.first_seen, f.id;

-- name: newest_runs
-- The newest runs over these tables.
select
    r.run_id, r.outcome, r.partitions, r.units, r.started_at, r.finished_at, r.undoes
from backfill.runs as r
where r.assets && :assets::text[]
order by r.started_at desc
limit :max_rows;

-- name: last_change$
-- The run that last changed these tables. Undo runs are excluded: they must be named by ID, so that repeating the
-- command after a killed undo resumes it.
select b.run_id
from backfill.batches as b
inner join backfill.runs as r on b.run_id = r.run_id and b.step = r.step
where
    b.asset = any(:assets::text[])
    and b.rows_inserted + b.rows_updated + b.rows_deleted > 0
    and r.undoes is null
order by b.committed_at desc
limit 1;

-- name: can_be_undone$
-- Whether these runs changed rows, all of which are in the journal.
select bool_and(b.journal is not null)
from backfill.batches as b
where b.run_id = any(:run_ids::text[]) and b.rows_inserted + b.rows_updated + b.rows_deleted > 0;

-- name: unfinished
-- Runs over these tables that have not finished.
select r.run_id
from backfill.runs as r
where r.finished_at is null and r.assets && :assets::text[];

-- name: steps
-- Progress of a run, by step.
select
    p.step, array_to_string(p.assets, ', ') as assets, p.partitions_total, p.partitions_done, p.units_total,
    p.units_done, p.failures, p.units_per_second, p.time_left
from backfill.run_progress as p
where p.run_id = :run_id
order by p.started_at, p.step;
