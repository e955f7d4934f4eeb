-- Domain 2: precomputed cohort and user statistics.

comment on schema progress is
'Domain 2: statistics of students and cohorts.';

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
'Source: cohorts, the partitions of this domain.';
create index cohorts_school_id_idx on progress.cohorts (school_id);
create table progress.users (
    id text primary key,
    cohort_id text not null references progress.cohorts on delete cascade,
    name text not null,
    email text not null,
    deleted_at timestamptz
);
comment on table progress.users is
'Source: students; one with deleted_at has left.';
create index users_cohort_id_idx on progress.users (cohort_id, id) where deleted_at is null;
create index users_cohort_id_all_idx on progress.users (cohort_id);
create table progress.classes (
    id text primary key,
    cohort_id text not null references progress.cohorts on delete cascade
);
comment on table progress.classes is
'Source: the classes of a cohort.';
create index classes_cohort_id_idx on progress.classes (cohort_id);
create table progress.modules (
    id text primary key,
    class_id text not null references progress.classes on delete cascade
);
comment on table progress.modules is
'Source: the modules of a class.';
create index modules_class_id_idx on progress.modules (class_id);
create table progress.questions (
    id text primary key,
    module_id text not null references progress.modules on delete cascade
);
comment on table progress.questions is
'Source: the questions of a module.';
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
'Source: one row an answer of a student to a question.';
create index user_progress_class_id_idx on progress.user_progress (class_id);
create index user_progress_question_id_idx on progress.user_progress (question_id);

-- Targets. Fill factors leave room on the page, so that a rewritten row stays on it (a HOT update).
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
'One row an active student: what it has answered and mastered. The asset of the same name.';
comment on column progress.user_progress_stats.user_id is 'The student.';
comment on column progress.user_progress_stats.cohort_id is 'The student''s cohort, which is the partition.';
comment on column progress.user_progress_stats.questions_interacted is
'Questions with a selected or eliminated option.';
comment on column progress.user_progress_stats.questions_mastered is 'Questions that the student has mastered.';
comment on column progress.user_progress_stats.total_questions is 'Questions of the cohort''s classes.';
comment on column progress.user_progress_stats.last_activity_at is 'The newest attempt; null without any.';
comment on column progress.user_progress_stats.updated_at is 'When the row last changed.';
-- The dashboard's read: the students of a cohort, one indexed range.
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
'One row a cohort: students, questions and the mean of their completion. The asset of the same name.';
comment on column progress.cohort_stats.cohort_id is 'The cohort, which is the partition.';
comment on column progress.cohort_stats.total_students is 'Active students.';
comment on column progress.cohort_stats.total_questions is 'Questions of the cohort''s classes.';
comment on column progress.cohort_stats.total_modules is 'Modules of the cohort''s classes.';
comment on column progress.cohort_stats.average_completion is
'Mean of its students'' completion in whole percent, rounded half up.';
comment on column progress.cohort_stats.updated_at is 'When the row last changed.';

-- Domain 2, real time: statement-level triggers that keep a student's own statistics right in the transaction that
-- saved the progress, and mark the cohorts whose statistics a change made stale.
--
-- The trigger functions run with their owner's rights (`security definer`, fixed search path): an application role
-- needs no right on the statistics or on the schema `backfill`.

-- Recompute the rows of these users from the sources; the caller holds the users' rows. One statement whatever the
-- number of users. Rows are written in key order, as a batch writes them, and only where they differ: the comparison
-- is made in the `on conflict` clause, on the newest version of the row, after waiting for whoever is writing it.
create function progress.write_user_stats(user_ids text[]) returns void
language plpgsql
set plan_cache_mode = 'auto'
as $$
begin
    -- A student's own save takes the cached plan, index lookups throughout. A bulk load is planned for its size.
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
            -- `offset 0`: a student's rows are found by student. By class they would be those of the whole class,
            -- for each student, which is what the planner chooses for tables that it has no statistics of.
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

-- The same, safe beside other transactions that save for the same users: the first holds their rows until it ends,
-- and the next computes in a statement of its own, whose snapshot (read committed) sees what the first one saved.
-- The lock is compatible with the foreign keys' own.
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

-- Both levels of these cohorts are stale.
create function progress.mark_cohorts_stale(cohort_ids text[]) returns void
language sql as $$
    select backfill.mark_stale(a, mark_cohorts_stale.cohort_ids)
    from unnest(array['progress/user_progress_stats', 'progress/cohort_stats']) as a
$$;

-- What each change of a source leads to. The students whose own row is concerned are recomputed here, and their cohorts
-- marked: whoever writes a row also leaves a mark, since a batch may have seen newer totals.
create function progress.sources_changed() returns trigger
language plpgsql
security definer
set search_path = pg_catalog, pg_temp
set row_security = off
as $$
declare
    saved text[];  -- students of whose progress something that counts has changed
    moved text[];  -- students who came, left, or are of another cohort now
    cohorts text[];
begin
    case tg_table_name || ' ' || tg_op
    -- Progress. Saving the same answer again changes nothing.
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

    -- Students: a new one has zeros at once, one who left has no row, one who moved is counted in the other cohort.
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

    -- Cohorts: a new one is computed even when it is empty.
    when 'cohorts INSERT' then
        cohorts := array(select n.id from new_rows as n);
    when 'cohorts UPDATE' then
        cohorts := array(select n.id from new_rows as n except select o.id from old_rows as o);

    -- `truncate` fires no row triggers and cascades to every table below.
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

-- Classes, modules, questions: the cohort's totals change. A row that goes because its parent goes may find no cohort
-- any more; the parent's own trigger has marked it. The parents are locked level by level, so that a class or module
-- that is just being moved leads to the cohort where it arrives. Called with the column that holds the parent.
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

-- Domain 2, what people and programs read: the status of every cohort, and the dashboard's two reads.

-- One row a cohort. `students` are the active ones; `students_with_stats` those of them that have a row in this
-- cohort; `leftover_stats` are rows of nobody who is an active student of the cohort. `is_missing`: the cohort or a
-- student has no row, or a row is left over; `stale_since`: the oldest change that no computation has seen. Either
-- means `needs_backfill`. Each part is a range of an index per cohort, so that one cohort costs the time of one.
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
'Every cohort: whether statistics are missing or stale, and since when.';

-- A cohort for the dashboard: one lookup by key. The names cost their own lookup only where they are asked for.
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
'A cohort for the dashboard: one lookup by key.';

-- Its students: one range of an index. `completion` is rounded half up to a whole percent.
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
'The students of a cohort for the dashboard: one range of an index.';

-- The quotient of the sums, since all students of a cohort have one total: the mean, without rounding in between. Counted
-- once, also where statistics from before the first fill promise a single cohort.
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
'Cohorts that are not stale, and whose row is not the mean of their students, rounded half up, or not their number.';
