-- Cohorts and students that could not be written, with the database's own message, newest first.
-- Mend the cause, then: backfills run progress_stats --which failed
select
    f.partition as cohort_id,
    c.name as cohort_name,
    f.unit as user_id,
    f.asset,
    f.attempts,
    f.first_seen,
    f.last_seen,
    f.sqlstate,
    f.message,
    f.run_id
from backfill.failures as f
left join progress.cohorts as c on c.id = f.partition
where f.resolved_at is null and f.asset in ('progress/user_progress_stats', 'progress/cohort_stats')
order by f.last_seen desc, f.id desc;
