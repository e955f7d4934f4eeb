-- The queue by type: what waits and for how long, what is for later, what ended in the last hour.
select
    m.job_type,
    m.waiting,
    m.scheduled,
    m.processing,
    make_interval(secs => m.oldest_waiting_seconds) as oldest_waits_for,
    m.completed_last_hour,
    m.failed_last_hour,
    m.cancelled_last_hour,
    make_interval(secs => m.mean_seconds) as mean_duration
from jobs.queue_metrics as m
order by m.job_type;
