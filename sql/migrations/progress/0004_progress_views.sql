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

-- The domain in one row, in the columns that every domain's overview has.
create view progress.overview as
select
    'cohorts' as of_what,
    count(*) as units,
    count(*) filter (where not s.needs_backfill and f.partition is null) as up_to_date,
    count(*) filter (where s.is_missing) as missing,
    count(*) filter (where s.stale_since is not null) as stale,
    count(f.partition) as failed,
    min(s.stale_since) as oldest_stale
from progress.cohort_status as s
left join (
    select distinct failures.partition
    from backfill.failures
    where failures.asset in ('progress/user_progress_stats', 'progress/cohort_stats') and failures.resolved_at is null
) as f on f.partition = s.cohort_id;
