-- Privileges. Four NOLOGIN roles, to be granted to logins:
--
--   backfills_owner     owns every schema. For migrations only.
--   backfills_writer    for runs, the daemon, the webserver and the command line: reads the sources, writes the results
--                       and Dagster's own tables. No DDL and no other schemas.
--   backfills_reader    for dashboards: reads views and results, but not the sources, queued jobs or imported rows.
--   backfills_enqueuer  for applications: calls jobs.enqueue_background_job and reads its own jobs in jobs.my_jobs.
--
-- Run it with `backfills migrate --roles` or psql "$ADMIN_URL" -f sql/roles.sql, as a superuser or as a role that may
-- create roles and owns the existing objects. Run it again after an upgrade: the writer has access to new tables by
-- default, but the reader's tables are listed here. Privileges that were granted by hand to one of the four roles in
-- these schemas are revoked; those of other roles stay.
--
-- For logins see docs/how-to/secure.md.

begin;

set local lock_timeout = '5s';

do $$
declare
    new_role text;
begin
    foreach new_role in array array[
        'backfills_owner', 'backfills_writer', 'backfills_reader', 'backfills_enqueuer'
    ] loop
        if not exists (select from pg_roles as r where r.rolname = new_role) then
            execute format('create role %I nologin', new_role);
        end if;
    end loop;
    -- Unless it is a superuser, the current role must be a member of the new owner to transfer ownership.
    if not pg_has_role(current_user, 'backfills_owner', 'usage') then
        execute format('grant backfills_owner to %I', current_user);
    end if;
    execute format('grant connect, create on database %I to backfills_owner', current_database());
    -- Batches use temporary tables.
    execute format('grant connect, temporary on database %I to backfills_writer', current_database());
    execute format('grant connect on database %I to backfills_reader, backfills_enqueuer', current_database());
end
$$;

-- The default since Postgres 15, but not in a database that was upgraded from an older version.
revoke create on schema public from public;

-- By default everybody may execute new functions. That can be revoked only for all schemas of a role at once.
alter default privileges for role backfills_owner revoke execute on functions from public;

-- Transfers ownership of existing objects, so that no `security definer` function runs as a superuser. Then revokes all
-- privileges and grants them again, so that grants of earlier versions do not remain.
do $$
declare
    owner_id constant oid := (select r.oid from pg_roles as r where r.rolname = 'backfills_owner');
    own record;
    statement text;
    kind text;
    rights text;
begin
    for own in
        select n.oid, n.nspname as name, n.nspowner
        from pg_namespace as n
        where n.nspname in ('backfill', 'training', 'progress', 'kintell', 'jobs', 'scoring', 'operations', 'dagster')
    loop
        if own.nspowner <> owner_id then
            execute format('alter schema %I owner to backfills_owner', own.name);
        end if;
        for statement in
            select format('alter table %s owner to backfills_owner', c.oid::regclass)
            from pg_class as c
            where c.relnamespace = own.oid
                and c.relkind in ('r', 'p', 'v', 'm', 'S', 'f')
                and c.relowner <> owner_id
                -- A column's sequence changes owner with its table.
                and not (c.relkind = 'S' and exists (
                    select from pg_depend as d
                    where d.classid = 'pg_class'::regclass and d.objid = c.oid and d.deptype in ('a', 'i')
                ))
            union all
            select format('alter routine %s owner to backfills_owner', p.oid::regprocedure)
            from pg_proc as p
            where p.pronamespace = own.oid and p.proowner <> owner_id
            union all
            select format('alter type %s owner to backfills_owner', t.oid::regtype)
            from pg_type as t
            where t.typnamespace = own.oid and t.typtype in ('d', 'e', 'r') and t.typowner <> owner_id
        loop
            execute statement;
        end loop;
        execute format($sql$
            revoke all on schema %1$I from public, backfills_writer, backfills_reader, backfills_enqueuer;
            grant usage on schema %1$I to backfills_writer;
        $sql$, own.name);
        for kind, rights in
            values ('tables', 'select, insert, update, delete'), ('sequences', 'usage, select'), ('routines', 'execute')
        loop
            execute format($sql$
                revoke all on all %2$s in schema %1$I
                    from public, backfills_writer, backfills_reader, backfills_enqueuer;
                grant %3$s on all %2$s in schema %1$I to backfills_writer;
                alter default privileges for role backfills_owner in schema %1$I
                    grant %3$s on %2$s to backfills_writer;
            $sql$, own.name, kind, rights);
        end loop;
        if own.name <> 'dagster' then
            execute format('grant usage on schema %I to backfills_reader', own.name);
        end if;
    end loop;
end
$$;

-- The writer may only read the tables of applications and operators.
do $$
declare
    source text;
begin
    foreach source in array array[
        'training.organizations', 'training.members', 'training.training_videos',
        'progress.schools', 'progress.cohorts', 'progress.users', 'progress.classes', 'progress.modules',
        'progress.questions', 'progress.user_progress',
        'scoring.gyms', 'scoring.members', 'scoring.visits', 'scoring.coaches', 'scoring.member_coaches',
        'jobs.job_types', 'jobs.queue_settings', 'backfill.schema_migrations'
    ] loop
        if to_regclass(source) is not null then
            execute format('revoke insert, update, delete on %s from backfills_writer', to_regclass(source));
        end if;
    end loop;
    -- The audit log is append-only, and the writer can't set its time and login.
    if to_regclass('backfill.audit') is not null then
        revoke insert, update, delete on backfill.audit from backfills_writer;
        grant insert (request, who, action, domains, target, outcome, runs, detail) on backfill.audit
        to backfills_writer;
    end if;
    -- The newest scores are stored in the member's row.
    if to_regclass('scoring.members') is not null then
        grant update (commitment_score, commitment_band, commitment_day) on scoring.members to backfills_writer;
        grant update (churn_risk_score, churn_risk_level, churn_risk_day) on scoring.members to backfills_writer;
    end if;
    -- For ANALYZE after a run. Before Postgres 17 only the owner may run it, so there it is left to autovacuum.
    if current_setting('server_version_num')::integer >= 170000 then
        if to_regclass('scoring.commitment_scores') is not null then
            execute 'grant maintain on scoring.commitment_scores, scoring.churn_risk_scores, scoring.coach_actions'
                || ' to backfills_writer';
        end if;
        if to_regclass('training.employee_training_video_completions') is not null then
            execute 'grant maintain on training.employee_training_video_completions to backfills_writer';
        end if;
    end if;
end
$$;

-- The reader: result tables, and all views except those listed.
do $$
declare
    shown text;
begin
    for shown in
        select c.oid::regclass::text
        from pg_class as c
        inner join pg_namespace as n on n.oid = c.relnamespace
        where n.nspname in ('backfill', 'training', 'progress', 'kintell', 'jobs', 'scoring', 'operations')
            and (
                c.relkind in ('v', 'm')
                and (n.nspname, c.relname) not in (
                    ('jobs', 'my_jobs'), ('kintell', 'event_payloads'), ('backfill', 'journal_entries')
                )
                or (n.nspname, c.relname) in (
                    ('backfill', 'runs'), ('backfill', 'batches'), ('backfill', 'stale_marks'),
                    ('backfill', 'schema_migrations'),
                    ('training', 'organization_training_progress'),
                    ('progress', 'user_progress_stats'), ('progress', 'cohort_stats'),
                    ('kintell', 'daily_session_summary'),
                    ('scoring', 'commitment_scores'), ('scoring', 'churn_risk_scores'), ('scoring', 'coach_actions'),
                    ('scoring', 'chain_days')
                )
            )
    loop
        execute format('grant select on %s to backfills_reader', shown);
    end loop;
end
$$;

-- The enqueuer: one function, one view.
do $$
begin
    if to_regclass('jobs.my_jobs') is not null then
        grant usage on schema jobs to backfills_enqueuer;
        grant select on jobs.my_jobs to backfills_enqueuer;
        grant execute on function jobs.enqueue_background_job to backfills_enqueuer;
    end if;
end
$$;

commit;
