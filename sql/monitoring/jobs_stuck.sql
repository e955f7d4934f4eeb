-- Jobs that are due and wait for longer than ten minutes, or are at work past their lease, the longest first.
-- Waiting: does a drain_background_jobs run work? Is the daemon up? Past its lease: the next worker, or the sensor's next
-- tick, takes the job back by itself; a row that stays here says that neither runs.
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
