-- What programs ask of runs. Each statement runs in psql; nothing is written.

-- name: run_rows
-- What a run has changed so far, by table.
select
    b.asset,
    sum(b.rows_inserted)::bigint as inserted,
    sum(b.rows_updated)::bigint as updated,
    sum(b.rows_deleted)::bigint as deleted
from backfill.batches as b
where b.run_id = :run_id
group by b.asset
order by b.asset;

-- name: run_failures
select f.asset, f.partition, f.unit, f.message
from backfill.failures as f
where f.run_id = :run_id and f.resolved_at is null
order by f.asset, f.partition, f.unit
limit :max_rows;

-- name: runs_of_assets
-- The newest runs that wrote these tables.
select
    r.run_id, r.outcome, r.partitions, r.units, r.started_at, r.finished_at, r.undoes
from backfill.runs as r
where r.assets && :assets::text[]
order by r.started_at desc
limit :max_rows;
