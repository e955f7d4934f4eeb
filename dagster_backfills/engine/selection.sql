-- Which partitions of a declared backfill need work, whatever its tables. In psql: \set assets … and go.

-- name: marked
-- Partitions that a change has made stale, and the first of the tables (in the backfill's order) that it concerns.
select
    m.partition,
    min(array_position(:assets::text[], m.asset)) - 1 as first_table,
    min(m.marked_at) as since
from backfill.stale_marks as m
where m.asset = any(:assets::text[])
group by m.partition;

-- name: failed
-- Partitions with something in the ledger, and whether it is time for another try: what failed of late waits twice as
-- long after each try, an hour at most.
select
    coalesce(f.partition, '') as partition,
    min(array_position(:assets::text[], f.asset)) - 1 as first_table,
    bool_or(f.unit is null) as whole,
    max(f.last_seen + least(interval '1 hour', interval '30 seconds' * 2 ^ least(f.attempts, 12))) <= now() as again
from backfill.failures as f
where f.asset = any(:assets::text[]) and f.resolved_at is null
group by f.partition;

-- name: undone
-- Partitions that were undone and not written since.
select distinct u.partition
from backfill.undone as u
where u.asset = any(:assets::text[]);

-- name: standing
-- Partitions that are stale, have something in the ledger, or were undone, and how much of it.
select
    s.partition,
    min(s.since) as stale_since,
    sum(s.failed)::bigint as failed,
    bool_or(s.undone) as undone
from (
    select m.partition, m.marked_at as since, 0 as failed, false as undone
    from backfill.stale_marks as m
    where m.asset = any(:assets::text[])
    union all
    select coalesce(f.partition, '') as partition, null as since, 1 as failed, false as undone
    from backfill.failures as f
    where f.asset = any(:assets::text[]) and f.resolved_at is null
    union all
    select u.partition, null as since, 0 as failed, true as undone
    from backfill.undone as u
    where u.asset = any(:assets::text[])
) as s
group by s.partition;

-- name: mark
-- Make partitions stale for each of these tables.
select backfill.mark_stale(a, :partition_keys::text[])
from unnest(:assets::text[]) as a;

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
