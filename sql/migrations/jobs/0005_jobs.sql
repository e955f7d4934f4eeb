comment on schema jobs is
'The background job queue.';

-- Returns a version 7 UUID. They increase over time, so that the newest rows are next to each other in every index.
create function jobs.new_id() returns uuid
language sql volatile parallel safe as $$
    select encode(
        set_byte(
            overlay(
                uuid_send(gen_random_uuid())
                placing substring(int8send((extract(epoch from clock_timestamp()) * 1000)::bigint) from 3)
                from 1 for 6
            ), 6, 112 + (random() * 15)::integer
        ), 'hex'
    )::uuid
$$;

create table jobs.queue_settings (
    only_row boolean primary key default true check (only_row),
    lease interval not null default '60 seconds' check (lease > interval '0'),
    retry_base interval not null default '10 seconds' check (retry_base >= interval '0'),
    retry_cap interval not null default '1 hour' check (retry_cap >= interval '0'),
    max_lost_leases integer not null default 10 check (max_lost_leases > 0),
    stuck_after interval not null default '10 minutes',
    keep_finished interval not null default '30 days'
);
comment on table jobs.queue_settings is
'Operators'' settings: lease, retry back-off, retention, and when a job counts as stuck. A single row.';
insert into jobs.queue_settings default values;

-- input_fields: the JSON type of each allowed field; null allows any fields.
create table jobs.job_types (
    job_type text primary key check (job_type ~ '^[a-z][a-z0-9_]*$'),
    input_fields jsonb check (jsonb_typeof(input_fields) = 'object'),
    required_fields text[] not null default '{}',
    output_fields text[] not null default '{}',
    max_retries integer not null default 3 check (max_retries >= 0)
);
comment on table jobs.job_types is
'Job types that can be enqueued, with their input fields and default retries.';
insert into jobs.job_types (job_type, input_fields, required_fields, output_fields) values
(
    'transcription',
    '{"audio_url": "string", "language": "string"}',
    '{audio_url}',
    '{transcript,segments,duration,language,engine}'
),
(
    'sop_generation',
    '{"title": "string", "transcript": "string", "duration": "number", "segments": "array"}',
    '{title,transcript,duration}',
    '{title,chapters,sop_markdown,key_points,engine}'
),
(
    'mux_upload',
    '{"video_url": "string"}',
    '{video_url}',
    '{asset_id,playback_id,status}'
);

-- There is no foreign key to job_types: each enqueue would lock the type's row, and pending jobs of a removed type must
-- still fail with a message. The enqueue functions check the type.
create table jobs.background_jobs (
    id uuid primary key default jobs.new_id(),
    job_type text not null,
    status text not null default 'pending'
    check (status in ('pending', 'processing', 'completed', 'failed', 'cancelled')),
    priority smallint not null default 5 check (priority between 1 and 10),
    user_id text,
    company_id text,
    training_id text,
    input_data jsonb not null default '{}' check (jsonb_typeof(input_data) = 'object'),
    output_data jsonb,
    error_data jsonb check (jsonb_typeof(error_data) = 'array'),
    progress_percentage smallint not null default 0 check (progress_percentage between 0 and 100),
    progress_message text,
    retry_count integer not null default 0 check (retry_count >= 0),
    max_retries integer not null default 3 check (max_retries >= 0),
    attempt integer not null default 0 check (attempt >= retry_count),
    claimed_by text,
    heartbeat_at timestamptz,
    parent_id uuid references jobs.background_jobs on delete set null,
    unique_key text,
    then_steps jsonb check (jsonb_typeof(then_steps) = 'array'),
    created_at timestamptz not null default clock_timestamp(),
    run_after timestamptz,
    started_at timestamptz,
    completed_at timestamptz,
    updated_at timestamptz not null default clock_timestamp(),
    -- The owner: the login that enqueued the job. SET ROLE does not change it.
    enqueued_by text default session_user,
    check (retry_count <= max_retries),
    constraint finished_jobs_have_an_end check (
        (status in ('completed', 'failed', 'cancelled')) = (completed_at is not null)
    ),
    constraint only_processing_jobs_are_claimed check (
        (status = 'processing') = (claimed_by is not null and heartbeat_at is not null)
    ),
    constraint processing_jobs_have_started check (status != 'processing' or started_at is not null),
    constraint completed_jobs_are_whole check (status != 'completed' or progress_percentage = 100)
);
comment on table jobs.background_jobs is
'Background jobs with their status, input, output, errors, owner and retries.';
comment on column jobs.background_jobs.job_type is 'The job type.';
comment on column jobs.background_jobs.status is '`pending`, `processing`, `completed`, `failed` or `cancelled`.';
comment on column jobs.background_jobs.priority is '1 (first) to 10 (last).';
comment on column jobs.background_jobs.input_data is 'The input.';
comment on column jobs.background_jobs.output_data is 'The result.';
comment on column jobs.background_jobs.error_data is 'The errors of the last 50 failed attempts.';
comment on column jobs.background_jobs.retry_count is 'Retries so far, at most `max_retries`.';
comment on column jobs.background_jobs.run_after is 'The job does not start before this time.';
comment on column jobs.background_jobs.claimed_by is 'The worker that holds the job.';
comment on column jobs.background_jobs.heartbeat_at is 'The last heartbeat of the worker.';
comment on column jobs.background_jobs.then_steps is 'The jobs to enqueue on completion.';
-- A cancelled job frees its key, so that the work can be enqueued again.
create unique index background_jobs_unique_key_idx on jobs.background_jobs (job_type, unique_key)
where unique_key is not null and status != 'cancelled';
create index background_jobs_parent_id_idx on jobs.background_jobs (parent_id) where parent_id is not null;
-- For processing jobs. The condition is not on the status, so that the planner does not use this index for updates that
-- are fenced by status; these must use the ID.
create index background_jobs_claimed_by_idx on jobs.background_jobs (claimed_by) where claimed_by is not null;
create index background_jobs_failed_idx on jobs.background_jobs (job_type, completed_at) where status = 'failed';
create index background_jobs_completed_at_idx on jobs.background_jobs (completed_at) where completed_at is not null;
create index background_jobs_created_at_idx on jobs.background_jobs using brin (created_at);

-- `run_after` is null once the job is due, so that a claim scans due jobs only, in order, however many are scheduled. A
-- claim deletes rows whose job is no longer pending, so a foreign key would add cost to every enqueue without need.
create table jobs.job_queue (
    job_id uuid primary key,
    job_type text not null,
    priority smallint not null,
    run_after timestamptz,
    created_at timestamptz not null
) with (autovacuum_vacuum_scale_factor = 0.01, autovacuum_vacuum_threshold = 2000);
comment on table jobs.job_queue is
'The queue that workers claim from, one narrow row per pending job.';
create index job_queue_due_idx on jobs.job_queue (priority, created_at, job_id) where run_after is null;
create index job_queue_later_idx on jobs.job_queue (run_after) where run_after is not null;

-- The state machine: rejects invalid status changes, and new attempts that are not claims. The condition is in the
-- trigger's WHEN clause, so that a valid change calls no function.
create function jobs.refuse_step() returns trigger
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
begin
    if new.status != old.status then
        raise exception 'Job % is % and can''t become % (attempt % to %)',
            old.id, old.status, new.status, old.attempt, new.attempt using errcode = 'check_violation';
    end if;
    raise exception 'Job %: only a claim starts a new attempt (attempt % to % while %)',
        old.id, old.attempt, new.attempt, old.status using errcode = 'check_violation';
end
$$;
create trigger refuse_step after update on jobs.background_jobs
for each row when (
    new.attempt != old.attempt + (old.status = 'pending' and new.status = 'processing')::integer
    or not case old.status
        when 'pending' then new.status in ('pending', 'processing', 'cancelled')
        when 'processing' then new.status in ('processing', 'pending', 'completed', 'failed', 'cancelled')
        when 'failed' then new.status in ('failed', 'pending')
        else new.status = old.status
    end
)
execute function jobs.refuse_step();

-- Channels: jobs_new, when a job is due (empty payload); jobs_cancelled, with a job's ID, for the worker that holds it;
-- jobs_changed, with {"id", "status", "progress"}, or {"status", "count"} if one statement changed many jobs.
create function jobs.announce(ids uuid[], status text) returns void
language plpgsql as $$
begin
    if cardinality(ids) > 10 then
        perform pg_notify('jobs_changed', json_build_object('status', status, 'count', cardinality(ids))::text);
    elsif cardinality(ids) > 0 then
        perform pg_notify('jobs_changed', json_build_object('id', i, 'status', announce.status)::text)
        from unnest(ids) as i;
    end if;
end
$$;

-- Returns what is wrong with an input for this job type, in one sentence that starts with the label, or null.
-- inherited: fields that come from earlier steps. Refuses also what other JSON parsers can't read: numbers beyond a
-- double's range, and deep nesting (parsers fail somewhere beyond 200 levels).
create function jobs.input_problem(wanted text, input_data jsonb, inherited jsonb, label text) returns text
language plpgsql stable as $$
declare
    kind jobs.job_types;
begin
    select t.* into kind from jobs.job_types as t where t.job_type = wanted;
    if kind.job_type is null then
        return format('Unknown job type: %s (known: %s)', coalesce(left(wanted, 100), 'null'),
            (select string_agg(t.job_type, ', ' order by t.job_type) from jobs.job_types as t));
    end if;
    if input_data is null or jsonb_typeof(input_data) != 'object' then
        return label || ': input_data must be a JSON object';
    end if;
    return label || ': ' || (
        select string_agg(p.problem, '; ' order by p.problem)
        from (
            select format('field %s is required', f) as problem
            from unnest(kind.required_fields) as f
            where case
                when input_data ? f then jsonb_typeof(input_data -> f) = 'null' else not inherited ? f
            end
            union all
            select format('field %s ', left(f.key, 100)) || case
                when not kind.input_fields ? f.key then 'is not known'
                when jsonb_typeof(f.value) not in (kind.input_fields ->> f.key, 'null')
                    then 'must be a ' || (kind.input_fields ->> f.key)
                when jsonb_path_exists(f.value, 'strict $.**{100}') then 'is nested more than 100 levels deep'
                when jsonb_path_exists(f.value, 'strict $.** ? (@.type() == "number" && @.abs() > 1.7e308)')
                    then 'holds a number beyond 1.7e308'
            end as problem
            from jsonb_each(input_data) as f
        ) as p
    );
end
$$;

-- Returns what is wrong with a job's priority or retries, or null.
create function jobs.settings_problem(job_type text, priority integer, max_retries integer) returns text
language sql immutable parallel safe as $$
    select case
        when priority is null or priority not between 1 and 10
            then format('%s: priority must be 1 to 10, not %s', job_type, coalesce(priority::text, 'null'))
        when max_retries < 0 then format('%s: max_retries must be 0 or more, not %s', job_type, max_retries)
    end
$$;

-- Returns what is wrong with the steps to enqueue on completion, as far as it can be known in advance, or null. Steps:
-- [{"job_type", "input_data", "priority", "max_retries"}, …]. A field that a step's input_data lacks is taken from the
-- output of the previous step, or else from that step's input.
create function jobs.steps_problem(first_type text, first_input jsonb, steps jsonb) returns text
language plpgsql stable as $$
declare
    step jsonb;
    label text;
    problem text;
    inherited jsonb := first_input;  -- Only the existence of its fields matters, not their values.
    before text := first_type;
begin
    if jsonb_typeof(steps) != 'array' then
        return format('%s: then_steps must be a JSON array of steps', first_type);
    end if;
    if jsonb_array_length(steps) > 100 then
        return format('%s: then_steps may have 100 steps, not %s', first_type, jsonb_array_length(steps));
    end if;
    for step in select s from jsonb_array_elements(steps) as s loop
        select inherited || coalesce(jsonb_object_agg(f, 1), '{}') into inherited
        from jobs.job_types as t cross join unnest(t.output_fields) as f where t.job_type = before;
        before := step ->> 'job_type';
        label := format('%s (a step of %s)', coalesce(left(before, 100), 'null'), first_type);
        problem := case
            when jsonb_typeof(step) != 'object' then label || ': a step must be a JSON object'
            when step - '{job_type,input_data,priority,max_retries}'::text[] != '{}'
                then label || ': a step has no ' || (
                    select left(min(k), 100)
                    from jsonb_object_keys(step - '{job_type,input_data,priority,max_retries}'::text[]) as k
                )
            when step ->> 'priority' !~ '^([1-9]|10)$' then label || ': priority must be 1 to 10'
            when step ->> 'max_retries' !~ '^[0-9]{1,9}$' then label || ': max_retries must be 0 or more'
            else jobs.input_problem(before, coalesce(step -> 'input_data', '{}'), inherited, label)
        end;
        if problem is not null then
            return problem;
        end if;
        select coalesce(step -> 'input_data', '{}') || coalesce(jsonb_object_agg(k, 1), '{}') into inherited
        from jobs.job_types as t cross join jsonb_object_keys(t.input_fields) as k
        where t.job_type = before and inherited ? k;
    end loop;
    return null;
end
$$;

-- Enqueues one job for each input, all with the same type and settings. All or none. Returns their IDs in the order of
-- the inputs. For a unique key see enqueue_background_job.
create function jobs.enqueue_background_jobs(
    job_type text,
    inputs jsonb[],
    priority integer default 5,
    run_after timestamptz default null,
    max_retries integer default null,
    user_id text default null,
    company_id text default null,
    training_id text default null
) returns uuid[]
language plpgsql as $$
#variable_conflict use_column
declare
    moment timestamptz := nullif($4, '-infinity');
    later timestamptz := case when moment > clock_timestamp() then moment end;
    ids uuid[];
    problem text := coalesce(
        jobs.settings_problem($1, $3, $5),
        (
            select p from unnest($2) as i cross join lateral jobs.input_problem($1, i, '{}', $1) as p
            where p is not null limit 1
        ),
        case
            when not exists (select from jobs.job_types as t where t.job_type = $1)
                then jobs.input_problem($1, '{}', '{}', $1)
        end
    );
begin
    if problem is not null then
        raise exception '%', problem using errcode = 'invalid_parameter_value';
    end if;
    with made as (
        insert into jobs.background_jobs as b (
            job_type, input_data, priority, run_after, max_retries, user_id, company_id, training_id
        )
        select $1, i, $3, moment, coalesce($5, t.max_retries), $6, $7, $8
        from unnest($2) as i inner join jobs.job_types as t on t.job_type = $1
        returning b.id
    )
    select coalesce(array_agg(m.id), '{}') into ids from made as m;
    perform jobs.put_in_queue(ids, later);
    return ids;
end
$$;

-- Enqueues one job and returns its ID. With a `unique_key` it is idempotent: if a job of this type has the key and is
-- not cancelled, its ID is returned. Raises invalid_parameter_value, naming the field, for an invalid input or step.
-- `security definer`: callers need only the privilege to execute it. The parent must be a job that the caller may read.
create function jobs.enqueue_background_job(
    job_type text,
    input_data jsonb default '{}',
    priority integer default 5,
    run_after timestamptz default null,
    unique_key text default null,
    max_retries integer default null,
    user_id text default null,
    company_id text default null,
    training_id text default null,
    parent_id uuid default null,
    then_steps jsonb default null
) returns uuid
language plpgsql
security definer
set search_path = pg_catalog, pg_temp
set row_security = off
as $$
#variable_conflict use_column
declare
    moment timestamptz := nullif($4, '-infinity');
    later timestamptz := case when moment > clock_timestamp() then moment end;
    made jobs.background_jobs;
    problem text := coalesce(
        jobs.input_problem($1, $2, '{}', $1), jobs.settings_problem($1, $3, $6), jobs.steps_problem($1, $2, $11),
        case
            when $10 is not null and not exists (
                select from jobs.background_jobs as p
                where p.id = $10 and (
                    p.enqueued_by = session_user
                    or has_table_privilege(session_user, 'jobs.background_jobs', 'select')
                )
            ) then format('%s: there is no job %s to be the parent', $1, $10)
        end
    );
begin
    if problem is not null then
        raise exception '%', problem using errcode = 'invalid_parameter_value';
    end if;
    -- If the job with the key is cancelled or deleted between the two statements, the next iteration inserts.
    loop
        insert into jobs.background_jobs as b (
            job_type, input_data, priority, run_after, unique_key, max_retries, user_id, company_id, training_id,
            parent_id, then_steps
        ) values (
            $1, $2, $3, moment, $5,
            coalesce($6, (select t.max_retries from jobs.job_types as t where t.job_type = $1)), $7, $8, $9,
            $10, nullif($11, '[]')
        )
        on conflict (job_type, unique_key) where unique_key is not null and status != 'cancelled' do nothing
        returning b.* into made;
        exit when made.id is not null;
        select b.* into made from jobs.background_jobs as b
        where b.job_type = $1 and b.unique_key = $5 and b.status != 'cancelled';
        if made.id is not null then
            return made.id;
        end if;
    end loop;
    perform jobs.put_in_queue(array[made.id], later);
    return made.id;
end
$$;

-- Functions for workers. Each is fenced: it accepts only the attempt that holds the job, and only during its lease.

-- Claims up to `max_jobs` due jobs for this worker: priority 1 first, then the oldest. Skips rows that another claim
-- has locked. Scheduled jobs whose time has come become due first.
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

-- Attempts whose last heartbeat is before this time have lost their lease.
create function jobs.oldest_heartbeat() returns timestamptz
language sql volatile as $$
    select clock_timestamp() - s.lease from jobs.queue_settings as s
$$;

-- In the functions below, `case` hides the condition on the status from the planner. It would otherwise expect hardly
-- any `processing` jobs and scan all of them for each attempt, instead of looking up each attempt's job by ID.

-- Renews the leases of these attempts. Returns the jobs that the worker still holds; the others were cancelled or lost.
-- Skips a row that is being completed at the same time, because waiting for it could deadlock.
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

-- Saves the progress of one attempt; a null percentage leaves the current one. Returns `processing` if it was accepted,
-- `cancelled` if the job was cancelled, and null if the attempt no longer holds the job.
create function jobs.report_progress(
    job_id uuid, attempt integer, percentage integer, message text
) returns text
language plpgsql as $$
declare
    stored integer;
begin
    update jobs.background_jobs as b
    set progress_percentage = greatest(0, least(100, coalesce(percentage, b.progress_percentage))),
        progress_message = left(message, 1000),
        heartbeat_at = clock_timestamp(),
        updated_at = clock_timestamp()
    where b.id = report_progress.job_id and b.attempt = report_progress.attempt and b.status = 'processing'
        and b.heartbeat_at >= jobs.oldest_heartbeat()
    returning b.progress_percentage into stored;
    if found then
        perform pg_notify('jobs_changed', json_build_object(
            'id', job_id, 'status', 'processing', 'progress', stored
        )::text);
        return 'processing';
    end if;
    return (
        select b.status from jobs.background_jobs as b
        where b.id = report_progress.job_id and b.attempt = report_progress.attempt and b.status = 'cancelled'
    );
end
$$;

-- Returns the input of the next step: its own input_data, completed with known fields of the previous step's output,
-- and then of its input.
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

-- Completes many attempts in one statement and enqueues their next steps, which keep the owner of the chain's first
-- job. Returns the jobs that were accepted.
create function jobs.complete_jobs(ids uuid[], attempts integer[], outputs jsonb[]) returns setof uuid
language plpgsql
set enable_seqscan = off
set enable_hashjoin = off
set enable_mergejoin = off
as $$
#variable_conflict use_column
declare
    done uuid[];
    chained uuid[];
    next_jobs uuid[];
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
    select array_agg(c.id), array_agg(c.id) filter (where c.then_steps is not null) into done, chained
    from completed as c;
    if chained is not null then
        with made as (
            insert into jobs.background_jobs as b (
                job_type, priority, max_retries, user_id, company_id, training_id, input_data, parent_id, then_steps,
                enqueued_by
            )
            select
                step.s ->> 'job_type', coalesce((step.s ->> 'priority')::smallint, p.priority),
                coalesce((step.s ->> 'max_retries')::integer, t.max_retries, p.max_retries),
                p.user_id, p.company_id, p.training_id, jobs.next_input(step.s, p.input_data, p.output_data),
                p.id, nullif(p.then_steps - 0, '[]'), p.enqueued_by
            from jobs.background_jobs as p
            cross join lateral (select p.then_steps -> 0 as s) as step
            left join jobs.job_types as t on t.job_type = step.s ->> 'job_type'
            where p.id = any(chained)
            returning b.id
        )
        select array_agg(m.id) into next_jobs from made as m;
        perform jobs.put_in_queue(next_jobs);
    end if;
    perform jobs.announce(done, 'completed');
    return query select d from unnest(done) as d;
end
$$;

-- Appends a failed attempt to error_data, which keeps the newest 50.
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

-- Records a failed attempt. Returns `pending` if it will be retried, `failed` if not, and null if the attempt no longer
-- holds the job. The delay of a retry is an exponential back-off from `retry_base` to `retry_cap`, with a jitter of 50 to
-- 150 percent.
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
    if again then
        select clock_timestamp() + least(s.retry_cap, s.retry_base * power(2, least(job.retry_count, 29))) * (0.5 + random())
        into next_time from jobs.queue_settings as s;
    end if;
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
        perform jobs.put_in_queue(array[job.id], next_time);
        return 'pending';
    end if;
    perform jobs.announce(array[job.id], 'failed');
    return 'failed';
end
$$;

-- Puts pending jobs into the queue, due now or later, and notifies. Returns their number.
create function jobs.put_in_queue(ids uuid[], later timestamptz default null) returns integer
language plpgsql as $$
begin
    if cardinality(ids) > 0 then
        insert into jobs.job_queue (job_id, job_type, priority, run_after, created_at)
        select b.id, b.job_type, b.priority, later, b.created_at from jobs.background_jobs as b where b.id = any(ids);
        if later is null then
            perform pg_notify('jobs_new', '');
        end if;
        perform jobs.announce(ids, 'pending');
    end if;
    return cardinality(ids);
end
$$;

-- Returns these attempts' jobs to the queue, due now, without counting a retry. Returns their number.
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
        returning b.id
    )
    select coalesce(array_agg(f.id), '{}') into given from freed as f;
    return jobs.put_in_queue(given);
end
$$;

-- Returns jobs with an expired lease to the queue, without counting a retry. A job that has lost `max_lost_leases`
-- workers fails, because it may be what kills them. Returns the number of jobs.
create function jobs.take_back_expired_jobs(max_jobs integer default 1000) returns integer
language plpgsql as $$
#variable_conflict use_column
declare
    back uuid[];
    failed uuid[];
begin
    with expired as materialized (
        select b.id, s.max_lost_leases <= 1 + (
            select count(*) from jsonb_array_elements(b.error_data) as e where e ->> 'kind' = 'lease_lost'
        ) as hopeless
        from jobs.background_jobs as b cross join jobs.queue_settings as s
        where b.claimed_by is not null and b.status = 'processing'
            and b.heartbeat_at < (select jobs.oldest_heartbeat())
        limit $1
        for update of b skip locked
    ), freed as (
        update jobs.background_jobs as b
        set status = case when x.hopeless then 'failed' else 'pending' end,
            error_data = jobs.add_error(
                b.error_data, b.attempt, 'lease_lost',
                format('Worker %s held the job and sent no heartbeat after %s', b.claimed_by, b.heartbeat_at), ''
            ),
            completed_at = case when x.hopeless then clock_timestamp() end,
            run_after = case when x.hopeless then b.run_after else clock_timestamp() end,
            claimed_by = null, heartbeat_at = null, updated_at = clock_timestamp()
        from expired as x
        where b.id = x.id
        returning b.id, b.status
    )
    select
        coalesce(array_agg(f.id) filter (where f.status = 'pending'), '{}'),
        coalesce(array_agg(f.id) filter (where f.status = 'failed'), '{}')
    into back, failed from freed as f;
    perform jobs.announce(failed, 'failed');
    return jobs.put_in_queue(back) + cardinality(failed);
end
$$;

-- Cancels a pending or processing job. Returns its previous status; a finished job stays as it is. Returns null if
-- there is no such job.
create function jobs.cancel_job(job_id uuid, reason text default null) returns text
language plpgsql as $$
declare
    before text;
begin
    select b.status into before from jobs.background_jobs as b where b.id = cancel_job.job_id for update;
    if before in ('pending', 'processing') then
        -- A claim that has locked the queue's row will find the job cancelled and delete the row.
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

-- Retries failed jobs, these or all of a type, with their retry count reset. Returns their number.
create function jobs.retry_failed_jobs(ids uuid[] default null, wanted_type text default null) returns integer
language plpgsql as $$
#variable_conflict use_column
declare
    again uuid[];
begin
    if ids is null and wanted_type is null then
        raise exception 'Give the IDs or the type of the failed jobs to retry'
            using errcode = 'invalid_parameter_value';
    end if;
    with freed as (
        update jobs.background_jobs as b
        set status = 'pending', retry_count = 0, completed_at = null, run_after = clock_timestamp(),
            progress_percentage = 0, progress_message = null, updated_at = clock_timestamp()
        where b.status = 'failed'
            and (ids is null or b.id = any(ids)) and (wanted_type is null or b.job_type = wanted_type)
        returning b.id
    )
    select coalesce(array_agg(f.id), '{}') into again from freed as f;
    return jobs.put_in_queue(again);
end
$$;

-- Deletes up to `max_jobs` jobs that ended more than `older_than` ago (by default `keep_finished`). Returns their
-- number; repeat until it returns 0.
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

-- Views for operators.

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
comment on view jobs.stuck_jobs is
'Jobs that have been due for too long, or are processing past their lease.';

create view jobs.active_jobs as
select
    b.id, b.job_type, b.status, b.priority, b.user_id, b.company_id, b.training_id, b.progress_percentage,
    b.progress_message, b.attempt, b.retry_count, b.max_retries, b.claimed_by, b.heartbeat_at, b.created_at,
    b.run_after, b.started_at
from (
    select w.id from jobs.background_jobs as w where w.claimed_by is not null and w.status = 'processing'
    union all
    select q.job_id from jobs.job_queue as q
) as a
inner join jobs.background_jobs as b on b.id = a.id;
comment on view jobs.active_jobs is
'Jobs that are processing or pending.';

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
comment on view jobs.average_durations is
'Durations of the jobs that completed in the last 30 days, by type.';

create view jobs.repeatedly_failing_jobs as
select
    b.id, b.job_type, b.status, b.retry_count, b.max_retries, b.updated_at,
    b.error_data -> -1 ->> 'kind' as last_kind, b.error_data -> -1 ->> 'message' as last_message
from (
    select f.id from jobs.background_jobs as f where f.status = 'failed'
    union all
    select a.id from jobs.active_jobs as a where a.retry_count >= 2
) as r
inner join jobs.background_jobs as b on b.id = r.id;
comment on view jobs.repeatedly_failing_jobs is
'Jobs that have failed or are on their second or a later retry, with the latest error.';

create view jobs.queue_metrics as
select
    e.job_type,
    count(*) filter (where e.state = 'waiting') as waiting,
    count(*) filter (where e.state = 'scheduled') as scheduled,
    count(*) filter (where e.state = 'processing') as processing,
    coalesce(extract(epoch from now() - min(e.since) filter (where e.state = 'waiting')), 0)::double precision
        as oldest_waiting_seconds,
    count(*) filter (where e.state = 'completed' and e.since > now() - interval '1 hour') as completed_last_hour,
    count(*) filter (where e.state = 'failed' and e.since > now() - interval '1 hour') as failed_last_hour,
    count(*) filter (where e.state = 'cancelled' and e.since > now() - interval '1 hour') as cancelled_last_hour,
    (avg(extract(epoch from e.took)) filter (where e.state = 'completed'))::double precision as mean_seconds
from (
    select t.job_type, 'registered' as state, null::timestamptz as since, null::interval as took
    from jobs.job_types as t
    union all
    select q.job_type, 'scheduled' as state, null as since, null as took
    from jobs.job_queue as q
    where q.run_after > now()
    union all
    select q.job_type, 'waiting' as state, coalesce(b.run_after, b.created_at) as since, null as took
    from jobs.job_queue as q
    left join jobs.background_jobs as b on b.id = q.job_id
    where q.run_after is null or q.run_after <= now()
    union all
    select b.job_type, 'processing' as state, null as since, null as took
    from jobs.background_jobs as b
    where b.claimed_by is not null and b.status = 'processing'
    union all
    select b.job_type, b.status as state, b.completed_at as since, b.completed_at - b.started_at as took
    from jobs.background_jobs as b
    where b.completed_at > now() - interval '1 day'
) as e
group by e.job_type;
comment on view jobs.queue_metrics is
'Metrics by job type: queue depth and age, jobs ended in the last hour, mean duration over the last day.';

-- Every domain has an overview with these columns.
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
comment on view jobs.overview is
'Summary of the domain for `backfills status`. A single row.';

-- For applications without privileges on the tables (role `enqueuer` of sql/roles.sql). `security_barrier` keeps the
-- conditions of a query from seeing other logins' rows.
create view jobs.my_jobs with (security_barrier) as
select
    b.id, b.job_type, b.status, b.priority, b.user_id, b.company_id, b.training_id, b.input_data, b.output_data,
    b.error_data, b.progress_percentage, b.progress_message, b.retry_count, b.max_retries, b.parent_id, b.unique_key,
    b.created_at, b.run_after, b.started_at, b.completed_at
from jobs.background_jobs as b
where b.enqueued_by = session_user;

comment on view jobs.my_jobs is
'The jobs that the current login has enqueued, for applications.';
