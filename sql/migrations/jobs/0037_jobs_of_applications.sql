-- Domain 4: applications put work in and follow it without any right on the tables (`enqueuer` of sql/roles.sql).

-- Whose job it is: the login that enqueued it, which no SET ROLE changes. Jobs from before have no known owner.
-- The default comes in a second statement, so that the rows that are there are not rewritten or ascribed to anybody.
alter table jobs.background_jobs add column enqueued_by text;
alter table jobs.background_jobs alter column enqueued_by set default session_user;

-- As before, but with its owner's rights: who may execute it may put work in, and needs no more. A parent must be a
-- job that the caller may see.
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

-- As before; a job that follows belongs to whoever enqueued the first of the chain.
create or replace function jobs.complete_jobs(ids uuid[], attempts integer[], outputs jsonb[]) returns setof uuid
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

-- A login's own jobs. `security_barrier`: no condition of a query on it sees another's row.
create view jobs.my_jobs with (security_barrier) as
select
    b.id, b.job_type, b.status, b.priority, b.user_id, b.company_id, b.training_id, b.input_data, b.output_data,
    b.error_data, b.progress_percentage, b.progress_message, b.retry_count, b.max_retries, b.parent_id, b.unique_key,
    b.created_at, b.run_after, b.started_at, b.completed_at
from jobs.background_jobs as b
where b.enqueued_by = session_user;

comment on view jobs.my_jobs is
'The jobs that the login who asks has enqueued: what an application sees of the queue.';
