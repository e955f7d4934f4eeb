-- Jobs that have failed or are on their second or a later retry, grouped by their latest error.
-- Fix the cause, then: backfills queue retry --type TYPE
select
    f.job_type,
    f.last_kind,
    left(f.last_message, 120) as last_message,
    count(*) as jobs,
    count(*) filter (where f.status = 'failed') as failed_for_good,
    min(f.updated_at) as first_seen,
    max(f.updated_at) as last_seen
from jobs.repeatedly_failing_jobs as f
group by f.job_type, f.last_kind, left(f.last_message, 120)
order by jobs desc;
