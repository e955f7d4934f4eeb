-- What became of runs, by the account of their batches. Each statement runs in psql.

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
