-- Jobs that have been due for more than ten minutes or are processing past their lease, longest first. If jobs are due:
-- is a drain_background_jobs run in progress, and is the daemon up? A job past its lease returns to the queue with the
-- next worker or the sensor's next tick; if it stays here, neither is running.
select
    s.id,
    s.job_type,
    s.status,
    s.reason,
    s.since,
    now() - s.since as stuck_for,
    s.priority,
    s.attempt,
    s.claimed_by
from jobs.stuck_jobs as s
order by s.since;
