-- Pending jobs that are missing from the queue and would never run. Should be empty.
-- Fix: insert the row into jobs.job_queue, or cancel the job.
select
    b.id,
    b.job_type,
    b.created_at,
    b.run_after
from jobs.background_jobs as b
where b.status = 'pending' and not exists (select 1 from jobs.job_queue as q where q.job_id = b.id)
order by b.created_at;
