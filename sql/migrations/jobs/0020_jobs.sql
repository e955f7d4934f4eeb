-- Domain 4: the background job queue. Tables and constraints, the state machine, and putting work in.

-- Ids in the order of time, so that the newest rows lie together in every index. Postgres has such from version 18 on.
do $$
begin
    if current_setting('server_version_num')::integer >= 180000 then
        create function jobs.new_id() returns uuid language sql volatile parallel safe as 'select uuidv7()';
    else
        create function jobs.new_id() returns uuid language sql volatile parallel safe as $body$
            select encode(
                set_byte(
                    overlay(
                        uuid_send(gen_random_uuid())
                        placing substring(int8send((extract(epoch from clock_timestamp()) * 1000)::bigint) from 3)
                        from 1 for 6
                    ), 6, 112 + (random() * 15)::integer
                ), 'hex'
            )::uuid
        $body$;
    end if;
end
$$;

-- What operators may turn. One row.
create table jobs.queue_settings (
    only_row boolean primary key default true check (only_row),
    lease interval not null default '60 seconds' check (lease > interval '0'),
    retry_base interval not null default '10 seconds' check (retry_base >= interval '0'),
    retry_cap interval not null default '1 hour' check (retry_cap >= interval '0'),
    max_lost_leases integer not null default 10 check (max_lost_leases > 0),
    stuck_after interval not null default '10 minutes',
    keep_finished interval not null default '30 days'
);
insert into jobs.queue_settings default values;

-- The kinds of work. `input_fields` maps each field that a type knows to its JSON type; null takes anything.
create table jobs.job_types (
    job_type text primary key check (job_type ~ '^[a-z][a-z0-9_]*$'),
    input_fields jsonb check (jsonb_typeof(input_fields) = 'object'),
    required_fields text[] not null default '{}',
    output_fields text[] not null default '{}',
    max_retries integer not null default 3 check (max_retries >= 0)
);
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

-- No foreign key to job_types: every enqueue would lock the type's row, and a type that is withdrawn while its
-- jobs wait must let them fail with a message. Enqueueing checks the type.
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
-- A cancelled job frees its key: the work was called off, and may be asked for again.
create unique index background_jobs_unique_key_idx on jobs.background_jobs (job_type, unique_key)
where unique_key is not null and status != 'cancelled';
create index background_jobs_parent_id_idx on jobs.background_jobs (parent_id) where parent_id is not null;
-- The jobs at work. Its condition is not the status, lest the planner take it for a fence, which must go by the id.
create index background_jobs_claimed_by_idx on jobs.background_jobs (claimed_by) where claimed_by is not null;
create index background_jobs_failed_idx on jobs.background_jobs (job_type, completed_at) where status = 'failed';
create index background_jobs_completed_at_idx on jobs.background_jobs (completed_at) where completed_at is not null;
create index background_jobs_created_at_idx on jobs.background_jobs using brin (created_at);

-- What is claimed from: one narrow row for each pending job. `run_after` is null once the job is due, so that a
-- claim walks due jobs only, in their order, however many wait for later. A row whose job is not pending (or gone) is
-- dropped by the claim that meets it, and so a foreign key, which would cost every enqueue, guards nothing.
create table jobs.job_queue (
    job_id uuid primary key,
    job_type text not null,
    priority smallint not null,
    run_after timestamptz,
    created_at timestamptz not null
) with (autovacuum_vacuum_scale_factor = 0.01, autovacuum_vacuum_threshold = 2000);
create index job_queue_due_idx on jobs.job_queue (priority, created_at, job_id) where run_after is null;
create index job_queue_later_idx on jobs.job_queue (run_after) where run_after is not null;

-- The state machine. A new attempt begins with a claim, and with nothing else. The condition stands in the trigger's
-- own WHEN, so that a step that is allowed calls no function.
create function jobs.refuse_step() returns trigger
language plpgsql as $$
begin
    if new.status != old.status then
        raise exception 'Job % is %, which can''t become % (attempt % to %)',
            old.id, old.status, new.status, old.attempt, new.attempt using errcode = 'check_violation';
    end if;
    raise exception 'Job %: a new attempt begins with a claim only (attempt % to % while %)',
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

-- Channel jobs_new: work is due (payload: nothing). jobs_cancelled: a job's id, for the worker that holds it.
-- jobs_changed: {"id", "status", "progress"} of a job, or {"status", "count"} where one statement changed many.
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

-- What is wrong with an input for this type, as one sentence; null where nothing is.
create function jobs.input_problem(wanted text, input_data jsonb) returns text
language plpgsql stable as $$
declare
    kind jobs.job_types;
    problem text;
begin
    select t.* into kind from jobs.job_types as t where t.job_type = wanted;
    if kind.job_type is null then
        return format('Unknown job type: %s (known: %s)', coalesce(wanted, 'null'),
            (select string_agg(t.job_type, ', ' order by t.job_type) from jobs.job_types as t));
    end if;
    if input_data is null or jsonb_typeof(input_data) != 'object' then
        return format('%s: input_data must be a JSON object', wanted);
    end if;
    if kind.input_fields is null then
        return null;
    end if;
    select string_agg(p, '; ' order by p) into problem from (
        select format('field %s is required', f) as p
        from unnest(kind.required_fields) as f
        where coalesce(jsonb_typeof(input_data -> f), 'null') = 'null'
        union all
        select case when not kind.input_fields ? f.key then format('field %s is not known', f.key)
            else format('field %s must be a %s', f.key, kind.input_fields ->> f.key) end
        from jsonb_each(input_data) as f
        where not kind.input_fields ? f.key
            or jsonb_typeof(f.value) not in (kind.input_fields ->> f.key, 'null')
    ) as problems;
    return wanted || ': ' || problem;
end
$$;

-- Steps that follow on completion: [{"job_type", "input_data", "priority", "max_retries"}, …]. A field of a step
-- that its input does not give comes from the output of the step before, then from that step's input. Returns what
-- is wrong, where that can be known before anything has run; null where nothing is.
create function jobs.steps_problem(first_type text, first_input jsonb, steps jsonb) returns text
language plpgsql stable as $$
declare
    step jsonb;
    given jsonb := coalesce(first_input, '{}');
    kind jobs.job_types;
    missing text;
begin
    if jsonb_typeof(steps) != 'array' then
        return 'then_steps must be a JSON array of steps';
    end if;
    select given || coalesce(jsonb_object_agg(f, 1), '{}') into given
    from jobs.job_types as t cross join unnest(t.output_fields) as f where t.job_type = first_type;
    for step in select s from jsonb_array_elements(steps) as s loop
        select t.* into kind from jobs.job_types as t where t.job_type = step ->> 'job_type';
        if kind.job_type is null then
            return jobs.input_problem(step ->> 'job_type', '{}');
        end if;
        select string_agg(format('field %s is required', f), '; ') into missing
        from unnest(kind.required_fields) as f
        where not given ? f and not coalesce(step -> 'input_data', '{}') ? f;
        if missing is not null then
            return format('%s (a step of %s): %s', kind.job_type, first_type, missing);
        end if;
        if step ? 'priority' and not (step ->> 'priority') ~ '^([1-9]|10)$' then
            return format('%s (a step of %s): priority must be 1 to 10', kind.job_type, first_type);
        end if;
        select coalesce(step -> 'input_data', '{}') || coalesce(jsonb_object_agg(f, 1), '{}') into given
        from (
            select unnest(kind.output_fields) as f
            union
            select k from jsonb_object_keys(kind.input_fields) as k where given ? k
        ) as fields;
    end loop;
    return null;
end
$$;

-- Many jobs of one type and settings, one for each input, in that order. Returns their ids, in that order.
-- All or none. A unique key belongs to one job and so not here: see enqueue_background_job.
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
    v alias for $1;
    kind jobs.job_types;
    problem text;
    later timestamptz := case when $4 > clock_timestamp() then $4 end;
    ids uuid[];
begin
    select t.* into kind from jobs.job_types as t where t.job_type = v;
    if kind.job_type is null or kind.input_fields is not null then
        select p into problem from unnest($2) as i cross join lateral jobs.input_problem($1, i) as p
        where p is not null limit 1;
    end if;
    if problem is null and kind.job_type is null then
        problem := jobs.input_problem($1, '{}');
    end if;
    if problem is not null then
        raise exception '%', problem using errcode = 'invalid_parameter_value';
    end if;
    with made as (
        insert into jobs.background_jobs as b (
            job_type, input_data, priority, run_after, max_retries, user_id, company_id, training_id
        )
        select $1, i, $3, $4, coalesce($5, kind.max_retries), $6, $7, $8 from unnest($2) as i
        returning b.id, b.created_at
    ), queued as (
        insert into jobs.job_queue (job_id, job_type, priority, run_after, created_at)
        select m.id, $1, $3, later, m.created_at from made as m
    )
    select coalesce(array_agg(m.id), '{}') into ids from made as m;
    if later is null and cardinality(ids) > 0 then
        perform pg_notify('jobs_new', '');
    end if;
    perform jobs.announce(ids, 'pending');
    return ids;
end
$$;

-- One job. With a `unique_key` it is idempotent: the id of the job of this type that has the key comes back, be it
-- waiting, at work, completed or failed. Raises invalid_parameter_value, naming the field, where the input does not
-- fit the type.
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
language plpgsql as $$
#variable_conflict use_column
declare
    problem text := jobs.input_problem($1, $2);
    later timestamptz := case when $4 > clock_timestamp() then $4 end;
    made jobs.background_jobs;
begin
    if problem is null and $11 is not null then
        problem := jobs.steps_problem($1, $2, $11);
    end if;
    if problem is null and $3 not between 1 and 10 then
        problem := format('%s: priority must be 1 to 10, not %s', $1, $3);
    end if;
    if problem is not null then
        raise exception '%', problem using errcode = 'invalid_parameter_value';
    end if;
    -- Where the key's holder is cancelled or removed between the two statements, the next round inserts.
    loop
        insert into jobs.background_jobs as b (
            job_type, input_data, priority, run_after, unique_key, max_retries, user_id, company_id, training_id,
            parent_id, then_steps
        ) values (
            $1, $2, $3, $4, $5,
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
    insert into jobs.job_queue (job_id, job_type, priority, run_after, created_at)
    values (made.id, $1, $3, later, made.created_at);
    if later is null then
        perform pg_notify('jobs_new', '');
    end if;
    perform jobs.announce(array[made.id], 'pending');
    return made.id;
end
$$;
