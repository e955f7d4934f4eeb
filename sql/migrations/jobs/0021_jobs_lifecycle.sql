-- Domain 4: a job's life from claim to end. Every function that a worker calls is fenced: it accepts only the
-- attempt that holds the job, and only while that attempt's lease lasts.

-- Claim up to `max_jobs` due jobs for this worker: priority 1 first, then the oldest. Rows that another claim has
-- locked are passed over. Jobs whose time has come become due first.
create function jobs.claim_jobs(worker text, max_jobs integer) returns table (
    id uuid, job_type text, priority smallint, attempt integer, retry_count integer, max_retries integer,
    input_data jsonb, created_at timestamptz
)
language plpgsql
set enable_seqscan = off
set enable_hashjoin = off
set enable_mergejoin = off
set enable_sort = off
as $$
#variable_conflict use_column
declare
    ids uuid[];
    moment timestamptz := clock_timestamp();
begin
    update jobs.job_queue as q set run_after = null
    where q.job_id in (
        select later.job_id from jobs.job_queue as later
        where later.run_after <= moment
        order by later.run_after
        limit 5000
        for update skip locked
    );
    with due as materialized (
        select q.job_id from jobs.job_queue as q
        where q.run_after is null
        order by q.priority, q.created_at, q.job_id
        limit $2
        for update skip locked
    ), taken as (
        delete from jobs.job_queue as q using due where q.job_id = due.job_id returning q.job_id
    )
    select array_agg(t.job_id) into ids from taken as t;
    if ids is null then
        return;
    end if;
    return query
    update jobs.background_jobs as b
    set status = 'processing',
        attempt = b.attempt + 1,
        claimed_by = $1,
        heartbeat_at = moment,
        started_at = moment,
        progress_percentage = 0,
        progress_message = null,
        updated_at = moment
    where b.id = any(ids) and b.status = 'pending'
    returning b.id, b.job_type, b.priority, b.attempt, b.retry_count, b.max_retries, b.input_data, b.created_at;
    perform jobs.announce(ids, 'processing');
end
$$;

-- Attempts that were heard of before this have lost their lease.
create function jobs.oldest_heartbeat() returns timestamptz
language sql volatile as $$
    select clock_timestamp() - s.lease from jobs.queue_settings as s
$$;

-- In the functions below that fence many attempts at once, `case` keeps the planner from thinking that hardly any job
-- is `processing` and so from looking through them all, once for each attempt: it must go from each attempt to its job.

-- Renew the leases of these attempts. Returns the jobs that the worker still holds; the others were cancelled or lost.
-- A row that is being completed at this moment is passed over: waiting for it, in no order, could deadlock.
create function jobs.renew_leases(ids uuid[], attempts integer[]) returns setof uuid
language plpgsql
set enable_seqscan = off
set enable_hashjoin = off
set enable_mergejoin = off
as $$
#variable_conflict use_column
declare
    oldest timestamptz := jobs.oldest_heartbeat();
begin
    with held as materialized (
        select b.id from unnest($1, $2) as h (id, attempt)
        inner join jobs.background_jobs as b on b.id = h.id and b.attempt = h.attempt
        where case when b.status = 'processing' then b.heartbeat_at >= oldest else false end
        for update of b skip locked
    )
    update jobs.background_jobs as b set heartbeat_at = clock_timestamp() from held where b.id = held.id;
    return query
    select b.id from unnest($1, $2) as h (id, attempt)
    inner join jobs.background_jobs as b on b.id = h.id and b.attempt = h.attempt
    where case when b.status = 'processing' then b.heartbeat_at >= oldest else false end;
end
$$;

-- Progress of one attempt. Returns the job's status: `processing` where it was accepted, `cancelled` where the job
-- was cancelled; null where the attempt does not hold the job any more.
create function jobs.report_progress(job_id uuid, attempt integer, percentage integer, message text) returns text
language plpgsql as $$
begin
    update jobs.background_jobs as b
    set progress_percentage = greatest(0, least(100, percentage)),
        progress_message = left(message, 1000),
        heartbeat_at = clock_timestamp(),
        updated_at = clock_timestamp()
    where b.id = report_progress.job_id and b.attempt = report_progress.attempt and b.status = 'processing'
        and b.heartbeat_at >= jobs.oldest_heartbeat();
    if found then
        perform pg_notify('jobs_changed', json_build_object(
            'id', job_id, 'status', 'processing', 'progress', percentage, 'message', left(message, 200)
        )::text);
        return 'processing';
    end if;
    return (
        select b.status from jobs.background_jobs as b
        where b.id = report_progress.job_id and b.attempt = report_progress.attempt and b.status = 'cancelled'
    );
end
$$;

-- The input of a step that follows: what the step gives, else the known fields from the output before, else from the
-- input before.
create function jobs.next_input(step jsonb, input_data jsonb, output_data jsonb) returns jsonb
language sql stable as $$
    select coalesce(
        (
            select jsonb_object_agg(k, coalesce(output_data -> k, input_data -> k))
            from jobs.job_types as t cross join lateral jsonb_object_keys(t.input_fields) as k
            where t.job_type = step ->> 'job_type' and (output_data ? k or input_data ? k)
        ), '{}'
    ) || coalesce(step -> 'input_data', '{}')
$$;

-- Complete many attempts in one statement, and start what follows each. Returns the jobs that were accepted.
create function jobs.complete_jobs(ids uuid[], attempts integer[], outputs jsonb[]) returns setof uuid
language plpgsql
set enable_seqscan = off
set enable_hashjoin = off
set enable_mergejoin = off
as $$
#variable_conflict use_column
declare
    done uuid[];
    chained boolean;
    oldest timestamptz := jobs.oldest_heartbeat();
begin
    with completed as (
        update jobs.background_jobs as b
        set status = 'completed',
            output_data = d.output,
            progress_percentage = 100,
            claimed_by = null,
            heartbeat_at = null,
            completed_at = clock_timestamp(),
            updated_at = clock_timestamp()
        from unnest($1, $2, $3) as d (id, attempt, output)
        where b.id = d.id and b.attempt = d.attempt
            and case when b.status = 'processing' then b.heartbeat_at >= oldest else false end
        returning b.id, b.then_steps
    )
    select array_agg(c.id), bool_or(c.then_steps is not null) into done, chained from completed as c;
    if done is null then
        return;
    end if;
    if chained then
        with made as (
            insert into jobs.background_jobs as b (
                job_type, priority, max_retries, user_id, company_id, training_id, input_data, parent_id, then_steps
            )
            select
                step.s ->> 'job_type', coalesce((step.s ->> 'priority')::smallint, p.priority),
                coalesce((step.s ->> 'max_retries')::integer, t.max_retries, p.max_retries),
                p.user_id, p.company_id, p.training_id, jobs.next_input(step.s, p.input_data, p.output_data),
                p.id, nullif(p.then_steps - 0, '[]')
            from jobs.background_jobs as p
            cross join lateral (select p.then_steps -> 0 as s) as step
            left join jobs.job_types as t on t.job_type = step.s ->> 'job_type'
            where p.id = any(done) and p.then_steps is not null
            returning b.id, b.job_type, b.priority, b.created_at
        )
        insert into jobs.job_queue (job_id, job_type, priority, created_at)
        select m.id, m.job_type, m.priority, m.created_at from made as m;
        perform pg_notify('jobs_new', '');
    end if;
    perform jobs.announce(done, 'completed');
    return query select d from unnest(done) as d;
end
$$;

-- How long to wait before retry number `retry` (from 1): doubling from `retry_base` up to `retry_cap`, times 0.5 to 1.5
-- at random, so that jobs that failed together do not come back together.
create function jobs.retry_delay(retry integer) returns interval
language sql volatile as $$
    select least(s.retry_cap, s.retry_base * power(2, least(retry, 30) - 1)) * (0.5 + random())
    from jobs.queue_settings as s
$$;

-- The record of one failed attempt within error_data; the newest 50 are kept.
create function jobs.add_error(errors jsonb, attempt integer, kind text, message text, trace text) returns jsonb
language sql volatile as $$
    select jsonb_path_query_array(e, '$[last - 49 to last]')
    from (
        select coalesce(errors, '[]') || jsonb_build_object(
            'attempt', attempt, 'kind', kind, 'message', left(message, 4000), 'trace', right(trace, 16000),
            'at', clock_timestamp()
        ) as e
    ) as grown
$$;

-- One attempt failed. Returns `pending` where a retry follows, `failed` where none is left or none would help; null
-- where the attempt does not hold the job any more.
create function jobs.fail_job(
    job_id uuid, attempt integer, kind text, message text, trace text default '', retryable boolean default true
) returns text
language plpgsql as $$
declare
    job jobs.background_jobs;
    again boolean;
    next_time timestamptz;
begin
    select b.* into job from jobs.background_jobs as b
    where b.id = fail_job.job_id and b.attempt = fail_job.attempt and b.status = 'processing'
        and b.heartbeat_at >= jobs.oldest_heartbeat()
    for update;
    if job.id is null then
        return null;
    end if;
    again := retryable and job.retry_count < job.max_retries;
    next_time := case when again then clock_timestamp() + jobs.retry_delay(job.retry_count + 1) end;
    update jobs.background_jobs as b
    set status = case when again then 'pending' else 'failed' end,
        retry_count = job.retry_count + again::integer,
        run_after = coalesce(next_time, b.run_after),
        error_data = jobs.add_error(b.error_data, job.attempt, kind, message, trace),
        claimed_by = null,
        heartbeat_at = null,
        completed_at = case when not again then clock_timestamp() end,
        updated_at = clock_timestamp()
    where b.id = job.id;
    if again then
        insert into jobs.job_queue (job_id, job_type, priority, run_after, created_at)
        values (job.id, job.job_type, job.priority, next_time, job.created_at);
    end if;
    perform jobs.announce(array[job.id], case when again then 'pending' else 'failed' end);
    return case when again then 'pending' else 'failed' end;
end
$$;

-- Give these attempts back, due at once and with no retry spent. Returns how many were.
create function jobs.give_back_jobs(ids uuid[], attempts integer[]) returns integer
language plpgsql
set enable_seqscan = off
set enable_hashjoin = off
set enable_mergejoin = off
as $$
#variable_conflict use_column
declare
    given uuid[];
begin
    with freed as (
        update jobs.background_jobs as b
        set status = 'pending', claimed_by = null, heartbeat_at = null, run_after = clock_timestamp(),
            progress_percentage = 0, progress_message = null, updated_at = clock_timestamp()
        from unnest($1, $2) as held (id, attempt)
        where b.id = held.id and b.attempt = held.attempt
            and case when b.status = 'processing' then true else false end
        returning b.id, b.job_type, b.priority, b.created_at
    ), queued as (
        insert into jobs.job_queue (job_id, job_type, priority, created_at)
        select f.id, f.job_type, f.priority, f.created_at from freed as f
        returning job_id
    )
    select coalesce(array_agg(q.job_id), '{}') into given from queued as q;
    if cardinality(given) > 0 then
        perform pg_notify('jobs_new', '');
        perform jobs.announce(given, 'pending');
    end if;
    return cardinality(given);
end
$$;

-- Give back everything that this worker holds, as it ends. Returns how many.
create function jobs.give_back_all_jobs(worker text) returns integer
language sql as $$
    select jobs.give_back_jobs(array_agg(b.id), array_agg(b.attempt))
    from jobs.background_jobs as b
    where b.status = 'processing' and b.claimed_by = worker
    having count(*) > 0
$$;

-- Take back the jobs whose lease is over. No retry is spent, but a job that lost `max_lost_leases` workers fails: it
-- may be what ends them. Returns how many were taken back.
create function jobs.take_back_expired_jobs(max_jobs integer default 1000) returns integer
language plpgsql as $$
#variable_conflict use_column
declare
    back uuid[];
    failed uuid[];
begin
    with expired as materialized (
        select b.id from jobs.background_jobs as b
        where b.claimed_by is not null and b.status = 'processing'
            and b.heartbeat_at < (select jobs.oldest_heartbeat())
        limit $1
        for update skip locked
    ), judged as materialized (
        select b.id, s.max_lost_leases <= 1 + (
            select count(*) from jsonb_array_elements(b.error_data) as e where e ->> 'kind' = 'lease_lost'
        ) as hopeless
        from expired as x inner join jobs.background_jobs as b on b.id = x.id cross join jobs.queue_settings as s
    ), freed as (
        update jobs.background_jobs as b
        set status = case when j.hopeless then 'failed' else 'pending' end,
            error_data = jobs.add_error(
                b.error_data, b.attempt, 'lease_lost',
                format('Worker %s held the job and was not heard of after %s', b.claimed_by, b.heartbeat_at), ''
            ),
            completed_at = case when j.hopeless then clock_timestamp() end,
            run_after = case when j.hopeless then b.run_after else clock_timestamp() end,
            claimed_by = null, heartbeat_at = null, updated_at = clock_timestamp()
        from judged as j
        where b.id = j.id
        returning b.id, b.job_type, b.priority, b.created_at, b.status
    ), queued as (
        insert into jobs.job_queue (job_id, job_type, priority, created_at)
        select f.id, f.job_type, f.priority, f.created_at from freed as f where f.status = 'pending'
    )
    select
        coalesce(array_agg(f.id) filter (where f.status = 'pending'), '{}'),
        coalesce(array_agg(f.id) filter (where f.status = 'failed'), '{}')
    into back, failed from freed as f;
    if cardinality(back) > 0 then
        perform pg_notify('jobs_new', '');
    end if;
    perform jobs.announce(back, 'pending');
    perform jobs.announce(failed, 'failed');
    return cardinality(back) + cardinality(failed);
end
$$;

-- Cancel a job that waits or is at work. Returns its status before; one that has ended stays as it is.
-- Null: no such job.
create function jobs.cancel_job(job_id uuid, reason text default null) returns text
language plpgsql as $$
declare
    before text;
begin
    select b.status into before from jobs.background_jobs as b where b.id = cancel_job.job_id for update;
    if before in ('pending', 'processing') then
        -- A claim that has locked the queue's row right now will find the job cancelled, and drop it.
        delete from jobs.job_queue as q
        where q.job_id in (
            select l.job_id from jobs.job_queue as l where l.job_id = cancel_job.job_id for update skip locked
        );
        update jobs.background_jobs as b
        set status = 'cancelled', claimed_by = null, heartbeat_at = null,
            progress_message = coalesce(left(reason, 1000), b.progress_message),
            completed_at = clock_timestamp(), updated_at = clock_timestamp()
        where b.id = cancel_job.job_id;
        perform jobs.announce(array[job_id], 'cancelled');
        if before = 'processing' then
            perform pg_notify('jobs_cancelled', job_id::text);
        end if;
    end if;
    return before;
end
$$;

-- Retry failed jobs by hand, with all their retries anew: these ones, or all of a type. Returns how many.
create function jobs.retry_failed_jobs(ids uuid[] default null, wanted_type text default null) returns integer
language plpgsql as $$
#variable_conflict use_column
declare
    again uuid[];
begin
    if ids is null and wanted_type is null then
        raise exception 'Say which failed jobs to retry: their ids or their type'
            using errcode = 'invalid_parameter_value';
    end if;
    with freed as (
        update jobs.background_jobs as b
        set status = 'pending', retry_count = 0, completed_at = null, run_after = clock_timestamp(),
            progress_percentage = 0, progress_message = null, updated_at = clock_timestamp()
        where b.status = 'failed'
            and (ids is null or b.id = any(ids)) and (wanted_type is null or b.job_type = wanted_type)
        returning b.id, b.job_type, b.priority, b.created_at
    ), queued as (
        insert into jobs.job_queue (job_id, job_type, priority, created_at)
        select f.id, f.job_type, f.priority, f.created_at from freed as f
        returning job_id
    )
    select coalesce(array_agg(q.job_id), '{}') into again from queued as q;
    if cardinality(again) > 0 then
        perform pg_notify('jobs_new', '');
        perform jobs.announce(again, 'pending');
    end if;
    return cardinality(again);
end
$$;

-- Remove up to `max_jobs` jobs that ended more than `older_than` ago (`keep_finished` where null). Returns how many;
-- call again until it returns 0.
create function jobs.clean_up_background_jobs(
    older_than interval default null, max_jobs integer default 10000
) returns integer
language sql as $$
    with old as (
        select b.id from jobs.background_jobs as b
        where b.completed_at < now() - coalesce(
            older_than, (select s.keep_finished from jobs.queue_settings as s)
        )
        order by b.completed_at
        limit max_jobs
        for update skip locked
    ), removed as (
        delete from jobs.background_jobs as b using old where b.id = old.id returning 1
    )
    select count(*)::integer from removed
$$;
