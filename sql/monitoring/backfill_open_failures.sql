-- Open failures with the database's message, newest first. If unit is null, the whole partition failed.
-- Fix the cause, then: backfills run BACKFILL --which failed
select
    f.asset,
    f.partition,
    f.unit,
    f.message,
    f.sqlstate,
    f.attempts,
    f.first_seen,
    f.last_seen,
    f.run_id
from backfill.failures as f
where f.resolved_at is null
order by f.last_seen desc, f.id desc;
