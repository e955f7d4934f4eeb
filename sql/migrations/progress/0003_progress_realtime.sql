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

-- Both levels of these cohorts are stale. A cohort that is being deleted, as its rows cascade, is left alone.
create function progress.mark_cohorts_stale(cohort_ids text[]) returns void
language plpgsql
as $$
declare
    present text[];
begin
    present := array(select c.id from progress.cohorts as c where c.id = any(mark_cohorts_stale.cohort_ids));
    if cardinality(present) > 0 then
        perform backfill.mark_stale('progress/user_progress_stats', present);
        perform backfill.mark_stale('progress/cohort_stats', present);
    end if;
end
$$;

-- Progress: the users for whom something that counts has changed are recomputed, and their cohorts marked. Saving the
-- same answer again does neither. Whoever writes a row also leaves a mark: a batch may have seen newer totals.
create function progress.user_progress_changed() returns trigger
language plpgsql
security definer
set search_path = pg_catalog, pg_temp
as $$
declare
    changed text[];
begin
    if tg_op = 'INSERT' then
        changed := array(select distinct n.user_id from new_rows as n);
    elsif tg_op = 'DELETE' then
        changed := array(select distinct o.user_id from old_rows as o);
    else
        changed := array(
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
    end if;
    if cardinality(changed) > 0 then
        perform progress.refresh_user_stats(changed);
        perform progress.mark_cohorts_stale(
            array(select distinct u.cohort_id from progress.users as u where u.id = any(changed) and u.deleted_at is null)
        );
    end if;
    return null;
end
$$;

create trigger user_progress_inserted after insert on progress.user_progress
referencing new table as new_rows
for each statement execute function progress.user_progress_changed();
create trigger user_progress_updated after update on progress.user_progress
referencing old table as old_rows new table as new_rows
for each statement execute function progress.user_progress_changed();
create trigger user_progress_deleted after delete on progress.user_progress
referencing old table as old_rows
for each statement execute function progress.user_progress_changed();

-- Students: a new one has zeros at once, one who left has no row, one who moved is counted in the other cohort.
create function progress.users_changed() returns trigger
language plpgsql
security definer
set search_path = pg_catalog, pg_temp
as $$
declare
    touched text[];
    cohorts text[];
begin
    if tg_op = 'INSERT' then
        touched := array(select n.id from new_rows as n where n.deleted_at is null);
        cohorts := array(select distinct n.cohort_id from new_rows as n where n.deleted_at is null);
    elsif tg_op = 'DELETE' then
        cohorts := array(select distinct o.cohort_id from old_rows as o where o.deleted_at is null);
    else
        select
            array_agg(distinct u.id),
            array_agg(distinct u.cohort_id)
        into touched, cohorts
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
    end if;
    if cardinality(touched) > 0 then
        perform progress.write_user_stats(touched);
    end if;
    perform progress.mark_cohorts_stale(cohorts);
    return null;
end
$$;

create trigger users_inserted after insert on progress.users
referencing new table as new_rows
for each statement execute function progress.users_changed();
create trigger users_updated after update on progress.users
referencing old table as old_rows new table as new_rows
for each statement execute function progress.users_changed();
create trigger users_deleted after delete on progress.users
referencing old table as old_rows
for each statement execute function progress.users_changed();

-- Classes, modules, questions: the cohort's totals change. A row that goes because its parent goes finds no cohort
-- any more; the parent's own trigger has marked it. The parents are locked level by level, so that a class or module
-- that is just being moved leads to the cohort where it arrives.
create function progress.mark_classes_stale(class_ids text[]) returns void
language plpgsql
as $$
begin
    perform progress.mark_cohorts_stale(
        array(
            select cl.cohort_id
            from progress.classes as cl
            where cl.id = any(mark_classes_stale.class_ids)
            order by cl.id
            for share
        )
    );
end
$$;

create function progress.mark_modules_stale(module_ids text[]) returns void
language plpgsql
as $$
begin
    perform progress.mark_classes_stale(
        array(
            select m.class_id
            from progress.modules as m
            where m.id = any(mark_modules_stale.module_ids)
            order by m.id
            for share
        )
    );
end
$$;

create function progress.classes_changed() returns trigger
language plpgsql
security definer
set search_path = pg_catalog, pg_temp
as $$
declare
    cohorts text[];
begin
    if tg_op = 'INSERT' then
        cohorts := array(select distinct n.cohort_id from new_rows as n);
    elsif tg_op = 'DELETE' then
        cohorts := array(select distinct o.cohort_id from old_rows as o);
    else
        cohorts := array(
            select distinct c.id
            from old_rows as o
            full join new_rows as n on n.id = o.id
            cross join lateral (values (o.cohort_id), (n.cohort_id)) as c (id)
            where o.cohort_id is distinct from n.cohort_id
        );
    end if;
    perform progress.mark_cohorts_stale(cohorts);
    return null;
end
$$;

create trigger classes_inserted after insert on progress.classes
referencing new table as new_rows
for each statement execute function progress.classes_changed();
create trigger classes_updated after update on progress.classes
referencing old table as old_rows new table as new_rows
for each statement execute function progress.classes_changed();
create trigger classes_deleted after delete on progress.classes
referencing old table as old_rows
for each statement execute function progress.classes_changed();

create function progress.modules_changed() returns trigger
language plpgsql
security definer
set search_path = pg_catalog, pg_temp
as $$
declare
    class_ids text[];
begin
    if tg_op = 'INSERT' then
        class_ids := array(select distinct n.class_id from new_rows as n);
    elsif tg_op = 'DELETE' then
        class_ids := array(select distinct o.class_id from old_rows as o);
    else
        class_ids := array(
            select distinct c.id
            from old_rows as o
            full join new_rows as n on n.id = o.id
            cross join lateral (values (o.class_id), (n.class_id)) as c (id)
            where o.class_id is distinct from n.class_id
        );
    end if;
    perform progress.mark_classes_stale(class_ids);
    return null;
end
$$;

create trigger modules_inserted after insert on progress.modules
referencing new table as new_rows
for each statement execute function progress.modules_changed();
create trigger modules_updated after update on progress.modules
referencing old table as old_rows new table as new_rows
for each statement execute function progress.modules_changed();
create trigger modules_deleted after delete on progress.modules
referencing old table as old_rows
for each statement execute function progress.modules_changed();

create function progress.questions_changed() returns trigger
language plpgsql
security definer
set search_path = pg_catalog, pg_temp
as $$
declare
    module_ids text[];
begin
    if tg_op = 'INSERT' then
        module_ids := array(select distinct n.module_id from new_rows as n);
    elsif tg_op = 'DELETE' then
        module_ids := array(select distinct o.module_id from old_rows as o);
    else
        module_ids := array(
            select distinct m.id
            from old_rows as o
            full join new_rows as n on n.id = o.id
            cross join lateral (values (o.module_id), (n.module_id)) as m (id)
            where o.module_id is distinct from n.module_id
        );
    end if;
    perform progress.mark_modules_stale(module_ids);
    return null;
end
$$;

create trigger questions_inserted after insert on progress.questions
referencing new table as new_rows
for each statement execute function progress.questions_changed();
create trigger questions_updated after update on progress.questions
referencing old table as old_rows new table as new_rows
for each statement execute function progress.questions_changed();
create trigger questions_deleted after delete on progress.questions
referencing old table as old_rows
for each statement execute function progress.questions_changed();

-- Cohorts: a new one is computed even when it is empty, one that goes takes its marks along. By then the cascade has
-- waited for everyone who was changing something in it: they hold a student of it or a class.
create function progress.cohorts_changed() returns trigger
language plpgsql
security definer
set search_path = pg_catalog, pg_temp
as $$
declare
    ids text[];
begin
    if tg_op in ('DELETE', 'UPDATE') then
        ids := array(select o.id from old_rows as o);
        delete from backfill.stale_marks as m
        where m.asset in ('progress/user_progress_stats', 'progress/cohort_stats')
            and m.partition = any(ids)
            and not exists (select from progress.cohorts as c where c.id = m.partition);
    end if;
    if tg_op = 'UPDATE' then
        ids := array(select n.id from new_rows as n except select o.id from old_rows as o);
    elsif tg_op = 'INSERT' then
        ids := array(select n.id from new_rows as n);
    end if;
    perform progress.mark_cohorts_stale(ids);
    return null;
end
$$;

create trigger cohorts_inserted after insert on progress.cohorts
referencing new table as new_rows
for each statement execute function progress.cohorts_changed();
create trigger cohorts_updated after update on progress.cohorts
referencing old table as old_rows new table as new_rows
for each statement execute function progress.cohorts_changed();
create trigger cohorts_deleted after delete on progress.cohorts
referencing old table as old_rows
for each statement execute function progress.cohorts_changed();

-- `truncate` fires no row triggers and cascades to every table below.
create function progress.sources_truncated() returns trigger
language plpgsql
security definer
set search_path = pg_catalog, pg_temp
as $$
begin
    delete from backfill.stale_marks as m
    where m.asset in ('progress/user_progress_stats', 'progress/cohort_stats')
        and not exists (select from progress.cohorts as c where c.id = m.partition);
    if tg_table_name = 'user_progress' then
        perform progress.refresh_user_stats(array(select u.id from progress.users as u where u.deleted_at is null));
    end if;
    perform progress.mark_cohorts_stale(array(select c.id from progress.cohorts as c));
    return null;
end
$$;

create trigger user_progress_truncated after truncate on progress.user_progress
for each statement execute function progress.sources_truncated();
create trigger users_truncated after truncate on progress.users
for each statement execute function progress.sources_truncated();
create trigger questions_truncated after truncate on progress.questions
for each statement execute function progress.sources_truncated();
create trigger modules_truncated after truncate on progress.modules
for each statement execute function progress.sources_truncated();
create trigger classes_truncated after truncate on progress.classes
for each statement execute function progress.sources_truncated();
create trigger cohorts_truncated after truncate on progress.cohorts
for each statement execute function progress.sources_truncated();
