-- What is at work now, with its progress, and what waits, in the order of the queue.
select
    a.id,
    a.job_type,
    a.status,
    a.priority,
    a.progress_percentage,
    a.progress_message,
    a.retry_count,
    now() - a.started_at as at_work_for,
    now() - a.heartbeat_at as heard_of,
    a.claimed_by
from jobs.active_jobs as a
order by a.status desc, a.priority, a.created_at
limit 200;
