-- name: enqueue_one$
select jobs.enqueue_background_job(
    :job_type, :input_data, :priority, :run_after, :unique_key, :max_retries, :user_id, :company_id, :training_id,
    null, :then_steps
);

-- name: enqueue_many$
select jobs.enqueue_background_jobs(
    :job_type,
    array(select i.input from jsonb_array_elements(:inputs) with ordinality as i (input, n) order by i.n),
    :priority, :run_after, :max_retries, :user_id, :company_id, :training_id
);

-- name: claim
select c.id, c.job_type, c.priority, c.attempt, c.retry_count, c.max_retries, c.input_data, c.created_at
from jobs.claim_jobs(:worker, :max_jobs) as c;

-- name: renew
select r from jobs.renew_leases(:ids, :attempts) as r;

-- name: report_progress$
select jobs.report_progress(:job_id, :attempt, :percentage, :message);

-- name: complete
select c from jobs.complete_jobs(:ids, :attempts, :outputs) as c;

-- name: fail$
select jobs.fail_job(:job_id, :attempt, :kind, :message, :trace, :retryable);

-- name: give_back$
select jobs.give_back_jobs(:ids, :attempts);

-- name: give_back_all$
select jobs.give_back_jobs(array_agg(b.id), array_agg(b.attempt))
from jobs.background_jobs as b
where b.status = 'processing' and b.claimed_by = :worker;

-- name: take_back_expired$
select jobs.take_back_expired_jobs();

-- name: cancel$
select jobs.cancel_job(:job_id, :reason);

-- name: retry$
select jobs.retry_failed_jobs(:ids, :job_type);

-- name: clean_up$
select jobs.clean_up_background_jobs(:older_than, :max_jobs);

-- name: lease_seconds$
select extract(epoch from s.lease)::double precision from jobs.queue_settings as s;

-- name: keep_days$
select extract(epoch from s.keep_finished)::double precision / 86400 from jobs.queue_settings as s;

-- name: one_job
select
    b.id, b.job_type, b.status, b.priority, b.user_id, b.company_id, b.training_id, b.input_data, b.output_data,
    b.error_data, b.progress_percentage, b.progress_message, b.retry_count, b.max_retries, b.attempt, b.claimed_by,
    b.heartbeat_at, b.parent_id, b.unique_key, b.then_steps, b.created_at, b.run_after, b.started_at, b.completed_at,
    b.updated_at
from jobs.background_jobs as b
where b.id = :job_id;

-- name: jobs_between
-- Jobs whose IDs share a prefix, given as a range of IDs.
select b.id from jobs.background_jobs as b where b.id between :first and :last order by b.id limit 6;

-- name: active_jobs
select
    a.id, a.job_type, a.status, a.priority, a.progress_percentage, a.progress_message, a.retry_count, a.max_retries,
    a.created_at, a.run_after, a.started_at, a.claimed_by
from jobs.active_jobs as a
order by a.status != 'processing', a.run_after is not null and a.run_after > now(), a.priority, a.created_at
limit :max_rows;

-- name: metrics
select
    m.job_type, m.waiting, m.scheduled, m.processing, m.oldest_waiting_seconds, m.completed_last_hour,
    m.failed_last_hour, m.cancelled_last_hour, m.mean_seconds
from jobs.queue_metrics as m
order by m.job_type;

-- name: waiting_work
select
    count(*) as due,
    coalesce(max(extract(epoch from now() - w.since)), 0)::double precision as oldest_seconds
from (
    select greatest(coalesce(q.run_after, q.created_at), q.created_at) as since from jobs.job_queue as q
    where q.run_after is null or q.run_after <= now()
    limit 1000
) as w;

-- name: stuck_jobs
select s.id, s.job_type, s.status, s.since, s.reason, s.claimed_by from jobs.stuck_jobs as s order by s.since limit 100;

-- name: types_failing
-- Job types with at least :many failed jobs within the window, with the newest error.
select
    b.job_type, count(*) as failed, max(b.completed_at) as latest,
    (array_agg(b.error_data -> -1 ->> 'message' order by b.completed_at desc))[1] as message
from jobs.background_jobs as b
where b.status = 'failed' and b.completed_at > now() - make_interval(secs => :window_seconds)
group by b.job_type
having count(*) >= :many
order by b.job_type;

-- name: known_types
select t.job_type, t.input_fields, t.required_fields, t.output_fields, t.max_retries
from jobs.job_types as t
order by t.job_type;

-- name: count_failed$
select count(*) from jobs.background_jobs as b where b.status = 'failed' and b.job_type = :job_type;

-- name: register_type
insert into jobs.job_types as t (job_type, input_fields, required_fields, output_fields, max_retries)
values (:job_type, :input_fields, :required_fields, :output_fields, :max_retries)
on conflict (job_type) do update
set input_fields = excluded.input_fields, required_fields = excluded.required_fields,
    output_fields = excluded.output_fields, max_retries = excluded.max_retries
returning t.job_type;

-- name: list_jobs
-- The newest jobs by ID, status, type or owner. For the next page, pass the last row's created_at as `before`.
select
    b.id, b.job_type, b.status, b.priority, b.user_id, b.company_id, b.training_id, b.progress_percentage,
    b.progress_message, b.retry_count, b.max_retries, b.created_at, b.run_after, b.started_at, b.completed_at,
    b.updated_at, b.error_data -> -1 ->> 'message' as last_error
from jobs.background_jobs as b
where
    (:ids::uuid[] is null or b.id = any(:ids::uuid[]))
    and (:status::text is null or b.status = :status)
    and (:job_type::text is null or b.job_type = :job_type)
    and (:user_id::text is null or b.user_id = :user_id)
    and (:company_id::text is null or b.company_id = :company_id)
    and (:before::timestamptz is null or b.created_at < :before)
order by b.created_at desc, b.id
limit :max_rows;
