-- Domain 4: whatever could stop a worker is refused when it is enqueued: steps that can't follow, JSON that no program
-- reads back. Progress is stored as it is told.

-- What of this JSON can't be read outside of Postgres, field by field; null where all can. Numbers end where a double
-- does; parsers give up on nesting somewhere from 200 levels on.
create function jobs.unreadable_fields(given jsonb) returns text
language sql immutable parallel safe as $$
    select string_agg(
        case
            when jsonb_path_exists(f.value, 'strict $.**{100}')
                then format('field %s is nested more than 100 levels deep', left(f.key, 100))
            else format('field %s holds a number beyond 1.7e308', left(f.key, 100))
        end, '; ' order by f.key
    )
    from jsonb_each(given) as f
    where jsonb_path_exists(f.value, 'strict $.**{100}')
        or jsonb_path_exists(f.value, 'strict $.** ? (@.type() == "number" && @.abs() > 1.7e308)')
$$;

-- What is wrong with the fields of an input. `inherited` has those that come from the steps before.
create function jobs.fields_problem(kind jobs.job_types, given jsonb, inherited jsonb) returns text
language sql stable as $$
    select coalesce(jobs.unreadable_fields(given), (
        select string_agg(p.problem, '; ' order by p.problem)
        from (
            select format('field %s is required', f) as problem
            from unnest(kind.required_fields) as f
            where case when given ? f then jsonb_typeof(given -> f) = 'null' else not inherited ? f end
            union all
            select
                case
                    when not kind.input_fields ? f.key then format('field %s is not known', left(f.key, 100))
                    else format('field %s must be a %s', f.key, kind.input_fields ->> f.key)
                end
            from jsonb_each(given) as f
            where kind.input_fields is not null and (
                not kind.input_fields ? f.key or jsonb_typeof(f.value) not in (kind.input_fields ->> f.key, 'null')
            )
        ) as p
    ))
$$;

-- What is wrong with an input for this type, as one sentence; null where nothing is.
create or replace function jobs.input_problem(wanted text, input_data jsonb) returns text
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
        return format('%s: input_data must be a JSON object', wanted);
    end if;
    return wanted || ': ' || jobs.fields_problem(kind, input_data, '{}');
end
$$;

-- What is wrong with how a job is to be run; null where nothing is.
create function jobs.settings_problem(job_type text, priority integer, max_retries integer) returns text
language sql immutable parallel safe as $$
    select case
        when priority is null or priority not between 1 and 10
            then format('%s: priority must be 1 to 10, not %s', job_type, coalesce(priority::text, 'null'))
        when max_retries < 0 then format('%s: max_retries must be 0 or more, not %s', job_type, max_retries)
    end
$$;

-- What is wrong with one step by itself, or by what it can take from the steps before; null where nothing is.
create function jobs.step_problem(step jsonb, inherited jsonb) returns text
language plpgsql stable as $$
declare
    kind jobs.job_types;
    other text;
begin
    if jsonb_typeof(step) != 'object' then
        return 'a step must be a JSON object';
    end if;
    select k into other from jsonb_object_keys(step) as k
    where k not in ('job_type', 'input_data', 'priority', 'max_retries') limit 1;
    if other is not null then
        return format('a step has no %s', left(other, 100));
    end if;
    select t.* into kind from jobs.job_types as t where t.job_type = step ->> 'job_type';
    if kind.job_type is null or jsonb_typeof(step -> 'job_type') != 'string' then
        return jobs.input_problem(step ->> 'job_type', '{}');
    end if;
    if step ? 'input_data' and jsonb_typeof(step -> 'input_data') != 'object' then
        return 'input_data must be a JSON object';
    end if;
    if step ->> 'priority' !~ '^([1-9]|10)$' then
        return 'priority must be 1 to 10';
    end if;
    if step ->> 'max_retries' !~ '^[0-9]{1,9}$' then
        return 'max_retries must be 0 or more';
    end if;
    return jobs.fields_problem(kind, coalesce(step -> 'input_data', '{}'), inherited);
end
$$;

-- Steps that follow on completion: [{"job_type", "input_data", "priority", "max_retries"}, …]. A field of a step
-- that its input does not give comes from the output of the step before, then from that step's input. Returns what
-- is wrong, where that can be known before anything has run; null where nothing is.
create or replace function jobs.steps_problem(first_type text, first_input jsonb, steps jsonb) returns text
language plpgsql stable as $$
declare
    step jsonb;
    problem text;
    given jsonb := first_input;
    before text := first_type;
begin
    if jsonb_typeof(steps) != 'array' then
        return format('%s: then_steps must be a JSON array of steps', first_type);
    end if;
    if jsonb_array_length(steps) > 100 then
        return format('%s: then_steps may have 100 steps, not %s', first_type, jsonb_array_length(steps));
    end if;
    for step in select s from jsonb_array_elements(steps) as s loop
        -- What may come from before: only that a field is there counts, not its value.
        select given || coalesce(jsonb_object_agg(f, 1), '{}') into given
        from jobs.job_types as t cross join unnest(t.output_fields) as f where t.job_type = before;
        problem := jobs.step_problem(step, given);
        if problem is not null then
            return format('%s (a step of %s): %s', coalesce(left(step ->> 'job_type', 100), 'null'), first_type, problem);
        end if;
        before := step ->> 'job_type';
        select coalesce(step -> 'input_data', '{}') || coalesce(jsonb_object_agg(k, 1), '{}') into given
        from jobs.job_types as t cross join jsonb_object_keys(t.input_fields) as k
        where t.job_type = before and given ? k;
    end loop;
    return null;
end
$$;

-- Many jobs of one type and settings, one for each input, in that order. Returns their ids, in that order.
-- All or none. A unique key belongs to one job and so not here: see enqueue_background_job.
create or replace function jobs.enqueue_background_jobs(
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
    problem text := jobs.settings_problem($1, $3, $5);
    moment timestamptz := nullif($4, '-infinity');
    later timestamptz := case when moment > clock_timestamp() then moment end;
    ids uuid[];
begin
    if problem is null then
        select p into problem from unnest($2) as i cross join lateral jobs.input_problem($1, i) as p
        where p is not null limit 1;
    end if;
    if problem is null and not exists (select from jobs.job_types as t where t.job_type = $1) then
        problem := jobs.input_problem($1, '{}');
    end if;
    if problem is not null then
        raise exception '%', problem using errcode = 'invalid_parameter_value';
    end if;
    with made as (
        insert into jobs.background_jobs as b (
            job_type, input_data, priority, run_after, max_retries, user_id, company_id, training_id
        )
        select $1, i, $3, moment, coalesce($5, t.max_retries), $6, $7, $8
        from unnest($2) as i inner join jobs.job_types as t on t.job_type = $1
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
-- fit the type, or what is to follow can't. With its owner's rights: who may execute it may put work in, and needs no
-- more. A parent must be a job that the caller may see.
create or replace function jobs.enqueue_background_job(
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
as $$
#variable_conflict use_column
declare
    problem text := coalesce(jobs.input_problem($1, $2), jobs.settings_problem($1, $3, $6));
    moment timestamptz := nullif($4, '-infinity');
    later timestamptz := case when moment > clock_timestamp() then moment end;
    made jobs.background_jobs;
begin
    if problem is null and $11 is not null then
        problem := jobs.steps_problem($1, $2, $11);
    end if;
    if problem is null and $10 is not null and not exists (
        select from jobs.background_jobs as p
        where p.id = $10
            and (p.enqueued_by = session_user or has_table_privilege(session_user, 'jobs.background_jobs', 'select'))
    ) then
        problem := format('%s: there is no job %s to be the parent', $1, $10);
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
    insert into jobs.job_queue (job_id, job_type, priority, run_after, created_at)
    values (made.id, $1, $3, later, made.created_at);
    if later is null then
        perform pg_notify('jobs_new', '');
    end if;
    perform jobs.announce(array[made.id], 'pending');
    return made.id;
end
$$;

-- Progress of one attempt; a percentage of null leaves the one that is there. Returns the job's status: `processing`
-- where it was accepted, `cancelled` where the job was cancelled; null where the attempt does not hold the job any more.
create or replace function jobs.report_progress(
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
