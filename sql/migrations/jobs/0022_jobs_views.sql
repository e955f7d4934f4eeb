-- Domain 4: what operators look at.

-- Jobs that wait for longer than `stuck_after` though they are due, or that are at work past their lease.
create view jobs.stuck_jobs as
select
    b.id, b.job_type, b.status, b.priority, b.attempt, b.claimed_by,
    coalesce(b.run_after, b.created_at) as since, 'waits' as reason
from jobs.job_queue as q
inner join jobs.background_jobs as b on b.id = q.job_id
cross join jobs.queue_settings as s
where coalesce(b.run_after, b.created_at) < now() - s.stuck_after
union all
select
    b.id, b.job_type, b.status, b.priority, b.attempt, b.claimed_by,
    b.heartbeat_at as since, 'past its lease' as reason
from jobs.background_jobs as b
cross join jobs.queue_settings as s
where b.claimed_by is not null and b.status = 'processing' and b.heartbeat_at < now() - s.lease;

-- Jobs at work and due, the ones at work first.
create view jobs.active_jobs as
select
    b.id, b.job_type, b.status, b.priority, b.user_id, b.company_id, b.training_id, b.progress_percentage,
    b.progress_message, b.attempt, b.retry_count, b.max_retries, b.claimed_by, b.heartbeat_at, b.created_at,
    b.run_after, b.started_at
from jobs.background_jobs as b
where b.claimed_by is not null and b.status = 'processing'
union all
select
    b.id, b.job_type, b.status, b.priority, b.user_id, b.company_id, b.training_id, b.progress_percentage,
    b.progress_message, b.attempt, b.retry_count, b.max_retries, b.claimed_by, b.heartbeat_at, b.created_at,
    b.run_after, b.started_at
from jobs.job_queue as q
inner join jobs.background_jobs as b on b.id = q.job_id;

-- Seconds from start to end of the jobs that completed within 30 days, by type.
create view jobs.average_durations as
select
    b.job_type,
    count(*) as jobs,
    avg(extract(epoch from b.completed_at - b.started_at))::double precision as mean_seconds,
    percentile_cont(0.5) within group (order by extract(epoch from b.completed_at - b.started_at)) as median_seconds,
    max(extract(epoch from b.completed_at - b.started_at))::double precision as longest_seconds
from jobs.background_jobs as b
where b.status = 'completed' and b.completed_at > now() - interval '30 days'
group by b.job_type;

-- Jobs that failed for good, or are on their second retry or a later one, with the last error.
create view jobs.repeatedly_failing_jobs as
select
    b.id, b.job_type, b.status, b.retry_count, b.max_retries, b.updated_at,
    b.error_data -> -1 ->> 'kind' as last_kind, b.error_data -> -1 ->> 'message' as last_message
from jobs.background_jobs as b
where b.status = 'failed'
union all
select
    b.id, b.job_type, b.status, b.retry_count, b.max_retries, b.updated_at,
    b.error_data -> -1 ->> 'kind' as last_kind, b.error_data -> -1 ->> 'message' as last_message
from jobs.active_jobs as a
inner join jobs.background_jobs as b on b.id = a.id
where b.retry_count >= 2;

-- The queue by type: depth, age, what ended in the last hour, mean duration over the last day.
create view jobs.queue_metrics as
select
    t.job_type,
    coalesce(q.waiting, 0) as waiting,
    coalesce(q.scheduled, 0) as scheduled,
    coalesce(p.processing, 0) as processing,
    coalesce(extract(epoch from now() - q.oldest), 0)::double precision as oldest_waiting_seconds,
    coalesce(f.completed_last_hour, 0) as completed_last_hour,
    coalesce(f.failed_last_hour, 0) as failed_last_hour,
    coalesce(f.cancelled_last_hour, 0) as cancelled_last_hour,
    f.mean_seconds
from (
    select k.job_type from jobs.job_types as k
    union
    select w.job_type from jobs.job_queue as w
) as t
left join (
    select
        w.job_type,
        count(*) filter (where w.run_after is null or w.run_after <= now()) as waiting,
        count(*) filter (where w.run_after > now()) as scheduled,
        min(coalesce(b.run_after, b.created_at)) as oldest
    from jobs.job_queue as w
    left join jobs.background_jobs as b
        on b.id = w.job_id and (w.run_after is null or w.run_after <= now())
    group by w.job_type
) as q on q.job_type = t.job_type
left join (
    select b.job_type, count(*) as processing from jobs.background_jobs as b
    where b.claimed_by is not null and b.status = 'processing' group by b.job_type
) as p on p.job_type = t.job_type
left join (
    select
        b.job_type,
        count(*) filter (where b.status = 'completed' and b.completed_at > now() - interval '1 hour')
            as completed_last_hour,
        count(*) filter (where b.status = 'failed' and b.completed_at > now() - interval '1 hour')
            as failed_last_hour,
        count(*) filter (where b.status = 'cancelled' and b.completed_at > now() - interval '1 hour')
            as cancelled_last_hour,
        (avg(extract(epoch from b.completed_at - b.started_at)) filter (where b.status = 'completed'))::double precision
            as mean_seconds
    from jobs.background_jobs as b
    where b.completed_at > now() - interval '1 day'
    group by b.job_type
) as f on f.job_type = t.job_type;

-- The domain in one row, in the columns that every domain's overview has.
create view jobs.overview as
select
    'jobs' as of_what,
    count(*) as units,
    count(*) filter (where j.status in ('completed', 'cancelled')) as up_to_date,
    count(*) filter (where j.status in ('pending', 'processing')) as missing,
    0::bigint as stale,
    count(*) filter (where j.status = 'failed') as failed,
    null::timestamptz as oldest_stale
from jobs.background_jobs as j;
