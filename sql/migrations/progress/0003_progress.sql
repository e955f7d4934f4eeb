comment on schema progress is
'Precomputed statistics of students and cohorts.';

-- Source tables.
create table progress.schools (
    id text primary key,
    name text not null
);
comment on table progress.schools is
'Source: schools.';
create table progress.cohorts (
    id text primary key,
    school_id text not null references progress.schools,
    name text not null,
    created_at timestamptz not null default now()
);
comment on table progress.cohorts is
'Source: cohorts. Each is a partition.';
create index cohorts_school_id_idx on progress.cohorts (school_id);
create table progress.users (
    id text primary key,
    cohort_id text not null references progress.cohorts on delete cascade,
    name text not null,
    email text not null,
    deleted_at timestamptz
);
comment on table progress.users is
'Source: students. A student with `deleted_at` has left.';
create index users_cohort_id_idx on progress.users (cohort_id, id) where deleted_at is null;
create index users_cohort_id_all_idx on progress.users (cohort_id);
create table progress.classes (
    id text primary key,
    cohort_id text not null references progress.cohorts on delete cascade
);
comment on table progress.classes is
'Source: classes of cohorts.';
create index classes_cohort_id_idx on progress.classes (cohort_id);
create table progress.modules (
    id text primary key,
    class_id text not null references progress.classes on delete cascade
);
comment on table progress.modules is
'Source: modules of classes.';
create index modules_class_id_idx on progress.modules (class_id);
create table progress.questions (
    id text primary key,
    module_id text not null references progress.modules on delete cascade
);
comment on table progress.questions is
'Source: questions of modules.';
create index questions_module_id_idx on progress.questions (module_id);
create table progress.user_progress (
    user_id text not null references progress.users on delete cascade,
    question_id text not null references progress.questions on delete cascade,
    class_id text not null references progress.classes on delete cascade,
    selected_options text[] not null default '{}',
    eliminated_options text[] not null default '{}',
    is_mastered boolean not null default false,
    last_attempt_at timestamptz,
    primary key (user_id, question_id)
);
comment on table progress.user_progress is
'Source: students'' answers, one row per student and question.';
create index user_progress_class_id_idx on progress.user_progress (class_id);
create index user_progress_question_id_idx on progress.user_progress (question_id);

-- Targets. Low fill factors leave room for HOT updates.
create table progress.user_progress_stats (
    user_id text primary key references progress.users on delete cascade,
    cohort_id text not null references progress.cohorts on delete cascade,
    questions_interacted integer not null check (questions_interacted >= 0),
    questions_mastered integer not null check (questions_mastered >= 0),
    total_questions integer not null check (total_questions >= 0),
    last_activity_at timestamptz,
    updated_at timestamptz not null default now()
) with (fillfactor = 45);
comment on table progress.user_progress_stats is
'Statistics of active students, one row per student.';
comment on column progress.user_progress_stats.user_id is 'The student.';
comment on column progress.user_progress_stats.cohort_id is 'The student''s cohort, which is the partition.';
comment on column progress.user_progress_stats.questions_interacted is
'Questions with a selected or eliminated option.';
comment on column progress.user_progress_stats.questions_mastered is 'Questions that the student has mastered.';
comment on column progress.user_progress_stats.total_questions is 'Questions of the cohort''s classes.';
comment on column progress.user_progress_stats.last_activity_at is 'The latest attempt; null if there is none.';
comment on column progress.user_progress_stats.updated_at is 'When the row last changed.';
-- For the dashboard: the students of a cohort.
create index user_progress_stats_cohort_id_idx on progress.user_progress_stats (cohort_id, user_id);

create table progress.cohort_stats (
    cohort_id text primary key references progress.cohorts on delete cascade,
    total_students integer not null check (total_students >= 0),
    total_questions integer not null check (total_questions >= 0),
    total_modules integer not null check (total_modules >= 0),
    average_completion integer not null check (average_completion >= 0),
    updated_at timestamptz not null default now()
) with (fillfactor = 45);
comment on table progress.cohort_stats is
'Statistics of cohorts, one row per cohort.';
comment on column progress.cohort_stats.cohort_id is 'The cohort, which is the partition.';
comment on column progress.cohort_stats.total_students is 'Active students.';
comment on column progress.cohort_stats.total_questions is 'Questions of the cohort''s classes.';
comment on column progress.cohort_stats.total_modules is 'Modules of the cohort''s classes.';
comment on column progress.cohort_stats.average_completion is
'Mean completion of the active students in whole percent, rounded half up.';
comment on column progress.cohort_stats.updated_at is 'When the row last changed.';

-- Real-time updates: statement-level triggers update a student's statistics in the transaction that saves progress, and
-- mark the cohorts whose statistics a change made stale. The trigger functions are `security definer`, so application
-- roles need no privileges on the statistics or on the schema `backfill`.

-- Recomputes the rows of these users. The caller holds locks on the users' rows. Rows are written in key order, as
-- batches write them, and only if they differ. The comparison is in the `on conflict` clause, so that it uses the
-- latest version of a row after waiting for a concurrent writer.
create function progress.write_user_stats(user_ids text[]) returns void
language plpgsql
set plan_cache_mode = 'auto'
as $$
begin
    -- Few students: use the cached plan with index lookups. A bulk load is planned for its size.
    if cardinality(user_ids) <= 100 then
        set local plan_cache_mode = 'force_generic_plan';
    else
        set local plan_cache_mode = 'force_custom_plan';
    end if;

    with leavers as (
        select s.user_id
        from unnest(write_user_stats.user_ids) as t (id)
        inner join progress.user_progress_stats as s on s.user_id = t.id
        where not exists (select from progress.users as u where u.id = t.id and u.deleted_at is null)
        order by s.user_id
        for update of s
    )
    delete from progress.user_progress_stats as s
    using leavers
    where s.user_id = leavers.user_id;

    with students as materialized (
        select
            u.id,
            u.cohort_id
        from (select distinct id from unnest(write_user_stats.user_ids) as t (id)) as touched
        inner join progress.users as u on u.id = touched.id
        where u.deleted_at is null
    ),

    totals as materialized (
        select
            c.cohort_id,
            (
                select count(*)
                from progress.classes as cl
                inner join progress.modules as m on m.class_id = cl.id
                inner join progress.questions as q on q.module_id = m.id
                where cl.cohort_id = c.cohort_id
            ) as questions
        from (select distinct cohort_id from students) as c
    )

    insert into progress.user_progress_stats as s (
        user_id, cohort_id, questions_interacted, questions_mastered, total_questions, last_activity_at, updated_at
    )
    select
        st.id,
        st.cohort_id,
        p.interacted,
        p.mastered,
        t.questions,
        p.last_activity_at,
        now()
    from students as st
    inner join totals as t on t.cohort_id = st.cohort_id
    cross join lateral (
        select
            count(*) filter (
                where cardinality(own.selected_options) > 0 or cardinality(own.eliminated_options) > 0
            ) as interacted,
            count(*) filter (where own.is_mastered) as mastered,
            max(own.last_attempt_at) as last_activity_at
        from (
            -- `offset 0` forces a lookup by student. For tables without statistics the planner would look up by class,
            -- and read the rows of whole classes for each student.
            select up.class_id, up.selected_options, up.eliminated_options, up.is_mastered, up.last_attempt_at
            from progress.user_progress as up
            where up.user_id = st.id
            offset 0
        ) as own
        inner join progress.classes as cl on cl.id = own.class_id
        where cl.cohort_id = st.cohort_id
    ) as p
    order by st.id
    on conflict (user_id) do update set
        cohort_id = excluded.cohort_id,
        questions_interacted = excluded.questions_interacted,
        questions_mastered = excluded.questions_mastered,
        total_questions = excluded.total_questions,
        last_activity_at = excluded.last_activity_at,
        updated_at = excluded.updated_at
    where (
        s.cohort_id, s.questions_interacted, s.questions_mastered, s.total_questions, s.last_activity_at
    ) is distinct from (
        excluded.cohort_id,
        excluded.questions_interacted,
        excluded.questions_mastered,
        excluded.total_questions,
        excluded.last_activity_at
    );
end
$$;

-- Like write_user_stats, but safe with concurrent transactions for the same users: it locks the users' rows first, and
-- then computes in a new statement whose snapshot (read committed) includes what a concurrent transaction saved. The
-- lock does not conflict with those of foreign key checks.
create function progress.refresh_user_stats(user_ids text[]) returns void
language plpgsql
as $$
begin
    perform
    from progress.users as u
    where u.id = any(refresh_user_stats.user_ids)
    order by u.id
    for no key update;

    perform progress.write_user_stats(refresh_user_stats.user_ids);
end
$$;

-- Marks both assets stale for these cohorts.
create function progress.mark_cohorts_stale(cohort_ids text[]) returns void
language sql as $$
    select backfill.mark_stale(a, mark_cohorts_stale.cohort_ids)
    from unnest(array['progress/user_progress_stats', 'progress/cohort_stats']) as a
$$;

-- Handles changes of source tables: recomputes the rows of the students concerned, and marks their cohorts stale. The
-- mark is needed for students as well, because a concurrent batch may have read other totals.
create function progress.sources_changed() returns trigger
language plpgsql
security definer
set search_path = pg_catalog, pg_temp
set row_security = off
as $$
declare
    saved text[];  -- students with a relevant change of progress
    moved text[];  -- students who joined, left or changed cohort
    cohorts text[];
begin
    case tg_table_name || ' ' || tg_op
    -- Saving the same answer again is not a change.
    when 'user_progress INSERT' then
        saved := array(select distinct n.user_id from new_rows as n);
    when 'user_progress DELETE' then
        saved := array(select distinct o.user_id from old_rows as o);
    when 'user_progress UPDATE' then
        saved := array(
            select distinct u.user_id
            from old_rows as o
            full join new_rows as n on n.user_id = o.user_id and n.question_id = o.question_id
            cross join lateral (values (o.user_id), (n.user_id)) as u (user_id)
            where u.user_id is not null and (
                o.user_id,
                o.class_id,
                cardinality(o.selected_options) > 0 or cardinality(o.eliminated_options) > 0,
                o.is_mastered,
                o.last_attempt_at
            ) is distinct from (
                n.user_id,
                n.class_id,
                cardinality(n.selected_options) > 0 or cardinality(n.eliminated_options) > 0,
                n.is_mastered,
                n.last_attempt_at
            )
        );

    -- A new student gets a row of zeros, one who left loses the row, and one who moved counts in the new cohort.
    when 'users INSERT' then
        moved := array(select n.id from new_rows as n where n.deleted_at is null);
        cohorts := array(select distinct n.cohort_id from new_rows as n where n.deleted_at is null);
    when 'users DELETE' then
        cohorts := array(select distinct o.cohort_id from old_rows as o where o.deleted_at is null);
    when 'users UPDATE' then
        select
            array_agg(distinct u.id),
            array_agg(distinct u.cohort_id)
        into moved, cohorts
        from old_rows as o
        full join new_rows as n on n.id = o.id
        cross join lateral (
            values
            (o.id, case when o.deleted_at is null then o.cohort_id end),
            (n.id, case when n.deleted_at is null then n.cohort_id end)
        ) as u (id, cohort_id)
        where
            case when o.deleted_at is null then o.cohort_id end
            is distinct from case when n.deleted_at is null then n.cohort_id end;

    -- A new cohort is computed even if it is empty.
    when 'cohorts INSERT' then
        cohorts := array(select n.id from new_rows as n);
    when 'cohorts UPDATE' then
        cohorts := array(select n.id from new_rows as n except select o.id from old_rows as o);

    -- TRUNCATE has no transition tables and cascades to all dependent tables.
    else
        if tg_table_name = 'user_progress' then
            perform progress.refresh_user_stats(array(select u.id from progress.users as u where u.deleted_at is null));
        end if;
        cohorts := array(select c.id from progress.cohorts as c);
    end case;

    if cardinality(saved) > 0 then
        perform progress.refresh_user_stats(saved);
        cohorts := array(
            select distinct u.cohort_id from progress.users as u where u.id = any(saved) and u.deleted_at is null
        );
    end if;
    if cardinality(moved) > 0 then
        perform progress.write_user_stats(moved);
    end if;
    perform progress.mark_cohorts_stale(cohorts);
    return null;
end
$$;

select backfill.add_triggers('progress.user_progress', 'progress.sources_changed', '{insert, update, delete, truncate}');
select backfill.add_triggers('progress.users', 'progress.sources_changed', '{insert, update, delete, truncate}');
select backfill.add_triggers('progress.cohorts', 'progress.sources_changed', '{insert, update, truncate}');
select backfill.add_triggers('progress.classes', 'progress.sources_changed', '{truncate}');
select backfill.add_triggers('progress.modules', 'progress.sources_changed', '{truncate}');
select backfill.add_triggers('progress.questions', 'progress.sources_changed', '{truncate}');

-- Handles changes of classes, modules and questions, which change a cohort's totals. A row that was deleted by a
-- cascade may no longer have a cohort; its parent's trigger has marked that. Parents are locked level by level, so that
-- a class or module that is being moved leads to its new cohort. The argument is the parent's column.
create function progress.content_changed() returns trigger
language plpgsql
security definer
set search_path = pg_catalog, pg_temp
set row_security = off
as $$
declare
    parents text[];
begin
    execute format(
        'select array(' || case tg_op
            when 'INSERT' then 'select distinct n.%1$I from new_rows as n'
            when 'DELETE' then 'select distinct o.%1$I from old_rows as o'
            else 'select distinct parent.id from old_rows as o full join new_rows as n on n.id = o.id '
                || 'cross join lateral (values (o.%1$I), (n.%1$I)) as parent (id) '
                || 'where o.%1$I is distinct from n.%1$I'
        end || ')', tg_argv[0]
    ) into parents;
    if tg_table_name = 'questions' then
        parents := array(
            select m.class_id from progress.modules as m where m.id = any(parents) order by m.id for share
        );
    end if;
    if tg_table_name <> 'classes' then
        parents := array(
            select cl.cohort_id from progress.classes as cl where cl.id = any(parents) order by cl.id for share
        );
    end if;
    perform progress.mark_cohorts_stale(parents);
    return null;
end
$$;

select backfill.add_triggers('progress.classes', 'progress.content_changed', '{insert, update, delete}', 'cohort_id');
select backfill.add_triggers('progress.modules', 'progress.content_changed', '{insert, update, delete}', 'class_id');
select backfill.add_triggers('progress.questions', 'progress.content_changed', '{insert, update, delete}', 'module_id');

-- students: active students. students_with_stats: those with a row in this cohort. leftover_stats: rows that belong to
-- no active student of the cohort. is_missing: the cohort or a student has no row, or there are leftover rows.
-- stale_since: the oldest change that no computation has seen. needs_backfill: missing or stale. Each part is an index
-- range scan per cohort, so that the status of one cohort is fast.
create view progress.cohort_status as
select
    c.id as cohort_id,
    c.name as cohort_name,
    c.school_id,
    sc.name as school_name,
    c.created_at,
    cs.cohort_id is not null as has_stats,
    u.students,
    u.students_with_stats,
    s.stats - u.students_with_stats as leftover_stats,
    cl.classes,
    w.is_missing,
    w.is_missing or st.stale_since is not null as needs_backfill,
    st.stale_since
from progress.cohorts as c
inner join progress.schools as sc on sc.id = c.school_id
left join progress.cohort_stats as cs on cs.cohort_id = c.id
left join lateral (
    select
        count(*) as students,
        count(ups.user_id) as students_with_stats
    from progress.users as us
    left join progress.user_progress_stats as ups on ups.user_id = us.id and ups.cohort_id = us.cohort_id
    where us.cohort_id = c.id and us.deleted_at is null
) as u on true
left join lateral (
    select count(*) as stats
    from progress.user_progress_stats as ups
    where ups.cohort_id = c.id
) as s on true
left join lateral (
    select count(*) as classes
    from progress.classes as k
    where k.cohort_id = c.id
) as cl on true
left join lateral (
    select min(m.marked_at) as stale_since
    from backfill.stale_marks as m
    where m.asset in ('progress/user_progress_stats', 'progress/cohort_stats') and m.partition = c.id
) as st on true
cross join lateral (
    select
        cs.cohort_id is null
        or u.students <> u.students_with_stats
        or s.stats <> u.students_with_stats as is_missing
) as w;
comment on view progress.cohort_status is
'Status of every cohort: whether its statistics are missing, or since when they are stale.';

-- The planner drops the joins of names that a query does not select.
create view progress.cohort_dashboard as
select
    cs.cohort_id,
    c.name as cohort_name,
    sc.name as school_name,
    cs.total_students,
    cs.total_questions,
    cs.total_modules,
    cs.average_completion,
    cs.updated_at
from progress.cohort_stats as cs
left join progress.cohorts as c on c.id = cs.cohort_id
left join progress.schools as sc on sc.id = c.school_id;
comment on view progress.cohort_dashboard is
'Cohort statistics for the dashboard: one lookup by key.';

create view progress.student_dashboard as
select
    s.cohort_id,
    s.user_id,
    u.name as user_name,
    s.questions_interacted,
    s.questions_mastered,
    s.total_questions,
    case
        when s.total_questions = 0 then 0
        else round(100.0 * s.questions_interacted / s.total_questions)::integer
    end as completion,
    s.last_activity_at,
    s.updated_at
from progress.user_progress_stats as s
left join progress.users as u on u.id = s.user_id;
comment on view progress.student_dashboard is
'The students of a cohort for the dashboard: one index range. `completion` is in whole percent, rounded half up.';

-- The mean without intermediate rounding is the quotient of sums, because all students of a cohort have the same total.
-- `materialized` keeps the planner from counting once per cohort if its statistics predate the first fill.
create view progress.wrong_averages as
with students as materialized (
    select
        s.cohort_id,
        count(*) as students,
        sum(s.questions_interacted) as interacted,
        max(s.total_questions) as questions
    from progress.user_progress_stats as s
    group by s.cohort_id
)

select
    c.cohort_id,
    c.average_completion,
    m.mean,
    c.total_students,
    coalesce(s.students, 0) as students_with_stats,
    c.updated_at
from progress.cohort_stats as c
left join students as s on c.cohort_id = s.cohort_id
cross join lateral (
    select coalesce(
        div(200 * s.interacted + s.questions * s.students, nullif(2 * s.questions * s.students, 0)), 0
    ) as mean
) as m
where
    (c.average_completion <> m.mean or c.total_students <> coalesce(s.students, 0))
    and not exists (
        select 1 from backfill.stale_marks as k
        where k.asset in ('progress/user_progress_stats', 'progress/cohort_stats') and k.partition = c.cohort_id
    );
comment on view progress.wrong_averages is
'Cohorts that are not stale although their average or their number of students is wrong. Should be empty.';
