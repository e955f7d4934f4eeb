-- Which partitions of a declared backfill need work, whatever its tables. In psql: \set assets … and go.

-- name: open_work
-- Partitions that are stale, have something in the ledger, or were undone. Tables are numbered in the backfill's order, the
-- first that is concerned. `again`: what failed of late waits twice as long after each try, an hour at most.
select
    w.partition,
    min(w.since) as stale_since,
    min(w.number) filter (where w.since is not null) as first_stale,
    count(w.attempts) as failed,
    min(w.number) filter (where w.attempts is not null) as first_failed,
    bool_or(w.whole) as whole,
    max(w.last_seen + least(interval '1 hour', interval '30 seconds' * 2 ^ least(w.attempts, 12))) <= now() as again,
    bool_or(w.attempts is null and w.since is null) as undone
from (
    select
        m.partition, m.marked_at as since, null::integer as attempts, null::timestamptz as last_seen,
        null::boolean as whole, array_position(:assets::text[], m.asset) - 1 as number
    from backfill.stale_marks as m
    where m.asset = any(:assets::text[])
    union all
    select
        coalesce(f.partition, '') as partition, null as since, f.attempts, f.last_seen,
        f.unit is null as whole, array_position(:assets::text[], f.asset) - 1 as number
    from backfill.failures as f
    where f.asset = any(:assets::text[]) and f.resolved_at is null
    union all
    select
        u.partition, null as since, null as attempts, null as last_seen,
        null as whole, null as number
    from backfill.undone as u
    where u.asset = any(:assets::text[])
) as w
group by w.partition;

-- name: mark
-- Make partitions stale for each of these tables.
select backfill.mark_stale(a, :partition_keys::text[])
from unnest(:assets::text[]) as a;

-- name: forget!
-- What is kept of these partitions, which are no more.
with marks as (
    delete from backfill.stale_marks as m
    where m.asset = any(:assets::text[]) and m.partition = any(:partition_keys::text[])
),

undone as (
    delete from backfill.undone as u
    where u.asset = any(:assets::text[]) and u.partition = any(:partition_keys::text[])
)

update backfill.failures as f set resolved_at = clock_timestamp()
where f.resolved_at is null and f.asset = any(:assets::text[]) and f.partition = any(:partition_keys::text[]);

-- name: open_failures
-- What could not be written, with the database's own message.
select
    coalesce(f.unit, f.partition, 'the table') as failed,
    f.partition,
    f.asset,
    f.message,
    f.attempts,
    f.last_seen,
    f.run_id
from backfill.failures as f
where f.asset = any(:assets::text[]) and f.resolved_at is null
order by f.last_seen desc, f.id;

-- name: late
-- Partitions that have waited for longer than automation should take.
select
    s.partition,
    min(s.since) as stale_since
from backfill.stale as s
where s.asset = any(:assets::text[])
group by s.partition
having min(s.since) < now() - make_interval(secs => :seconds)
order by min(s.since), s.partition;
