-- Queries of the job pages. Each state has an index of its own; pending jobs are read from the narrow queue table.
-- Lists use keyset pagination: a page starts after the last row of the previous one.

-- name: counts
-- The number of jobs in each state; completed and cancelled ones of the last 24 hours only.
select 'processing' as status, count(*) as jobs
from jobs.background_jobs as b
where b.claimed_by is not null
union all
select 'pending' as status, count(*) as jobs
from jobs.job_queue
union all
select 'failed' as status, count(*) as jobs
from jobs.background_jobs as b
where b.status = 'failed'
union all
select b.status, count(*) as jobs
from jobs.background_jobs as b
where b.completed_at > now() - interval '1 day' and b.status in ('completed', 'cancelled')
group by b.status;

-- name: processing
select
    b.id, b.job_type, b.status, b.priority, b.progress_percentage, b.progress_message, b.retry_count, b.max_retries,
    b.created_at, b.run_after, b.started_at, b.completed_at, null as last_error
from jobs.background_jobs as b
where
    b.claimed_by is not null
    and (
        :after::uuid is null
        or (b.started_at, b.id)
        > (select a.started_at, a.id from jobs.background_jobs as a where a.id = :after::uuid)
    )
order by b.started_at, b.id
limit :most;

-- name: pending
-- In the order in which they are claimed, scheduled ones last. The last job of the previous page may have been claimed
-- meanwhile, so its position comes from background_jobs.
with waiting as (
    select q.job_id, q.run_after is not null as later, q.priority, q.created_at
    from jobs.job_queue as q
    where
        :after::uuid is null
        or (q.run_after is not null, q.priority, q.created_at, q.job_id)
        > (
            select aq.run_after is not null as later, a.priority, a.created_at, a.id
            from jobs.background_jobs as a
            left join jobs.job_queue as aq on aq.job_id = a.id
            where a.id = :after::uuid
        )
    order by q.run_after is not null, q.priority, q.created_at, q.job_id
    limit :most
)

select
    b.id, b.job_type, b.status, b.priority, b.progress_percentage, b.progress_message, b.retry_count, b.max_retries,
    b.created_at, b.run_after, b.started_at, b.completed_at, b.error_data -> -1 ->> 'message' as last_error
from waiting as w
inner join jobs.background_jobs as b on b.id = w.job_id and b.status = 'pending'
order by w.later, w.priority, w.created_at, w.job_id;

-- name: ended
-- Most recently ended first. `at`: when job `after` ended; it may have been retried meanwhile.
select
    b.id, b.job_type, b.status, b.priority, b.progress_percentage, b.progress_message, b.retry_count, b.max_retries,
    b.created_at, b.run_after, b.started_at, b.completed_at, b.error_data -> -1 ->> 'message' as last_error
from jobs.background_jobs as b
where
    b.status = :status
    and b.completed_at is not null
    and (
        :after::uuid is null
        or (b.completed_at, b.id) < (:at::timestamptz, :after::uuid)
    )
order by b.completed_at desc, b.id desc
limit :most;

-- name: steps
-- The jobs that this job started on completion.
select b.id, b.job_type, b.status
from jobs.background_jobs as b
where b.parent_id = :job
order by b.created_at, b.id
limit 100;
