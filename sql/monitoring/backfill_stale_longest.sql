-- The partitions that have been stale longest, with the number of changes. If it is more than a few minutes, automation
-- is off or its runs fail (backfill_open_failures.sql).
select
    s.asset,
    s.partition,
    s.since,
    now() - s.since as waiting,
    s.changes
from backfill.stale as s
order by s.since, s.partition, s.asset
limit 50;
