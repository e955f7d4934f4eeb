-- Partitions of a declared backfill that need work. To run a statement in psql, set its parameters: \set assets …

-- name: open_work
-- Partitions that are stale, have open failures, or were undone. first_stale, first_failed: the index of the first such
-- table in the backfill's order. whole: the partition failed as a whole. retry_due: the exponential back-off since the
-- last failure (an hour at most) is over.
select
    w.partition,
    min(w.since) as stale_since,
    min(w.number) filter (where w.since is not null) as first_stale,
    count(w.attempts) as failed,
    min(w.number) filter (where w.attempts is not null) as first_failed,
    bool_or(w.whole) as whole,
    max(w.last_seen + least(interval '1 hour', interval '30 seconds' * 2 ^ least(w.attempts, 12))) <= now() as retry_due,
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

-- name: written
-- Partitions that runs have written completely, in each of these tables.
select w.partition
from (
    select distinct
        b.asset,
        p.partition
    from backfill.batches as b
    cross join lateral unnest(b.partitions) as p (partition)
    where b.asset = any(:assets::text[]) and b.units_upto is null
) as w
group by w.partition
having count(*) = cardinality(:assets::text[]);

-- name: mark
-- Marks partitions stale for each of these tables.
select backfill.mark_stale(a, :partition_keys::text[])
from unnest(:assets::text[]) as a;

-- name: forget!
-- Removes stale marks and undo records of deleted partitions, and resolves their failures.
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
-- Open failures with the database's message, newest first.
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
-- Partitions that have been stale for longer than :seconds.
select
    s.partition,
    min(s.since) as stale_since
from backfill.stale as s
where s.asset = any(:assets::text[])
group by s.partition
having min(s.since) < now() - make_interval(secs => :seconds)
order by min(s.since), s.partition;
