-- Queries of the progress pages. They read computed statistics, a page at a time.

-- name: cohorts
-- Ordered by school and name, with the averages last computed.
select
    c.id, c.name, c.school_id, sc.name as school_name, s.total_students, s.total_questions, s.total_modules,
    s.average_completion, s.updated_at,
    c.id in (
        select m.partition from backfill.stale_marks as m
        where m.asset in ('progress/user_progress_stats', 'progress/cohort_stats')
    ) as is_stale
from progress.cohorts as c
inner join progress.schools as sc on sc.id = c.school_id
left join progress.cohort_stats as s on s.cohort_id = c.id
where
    (:ids::text[] is null or c.id = any(:ids::text[]))
    and (
        :after::text is null
        or (sc.name, sc.id, c.name, c.id) > (
            select ac.name as school_name, ac.id as school_id, a.name, a.id
            from progress.cohorts as a
            inner join progress.schools as ac on ac.id = a.school_id
            where a.id = :after::text
        )
    )
order by sc.name, sc.id, c.name, c.id
limit :most;

-- name: names
select id, name from progress.cohorts;

-- name: cohort
select
    c.id, c.name, sc.name as school_name, s.total_students, s.total_questions, s.total_modules, s.average_completion,
    s.updated_at,
    (
        select min(m.marked_at) from backfill.stale_marks as m
        where m.asset in ('progress/user_progress_stats', 'progress/cohort_stats') and m.partition = c.id
    ) as stale_since
from progress.cohorts as c
inner join progress.schools as sc on sc.id = c.school_id
left join progress.cohort_stats as s on s.cohort_id = c.id
where c.id = :cohort;

-- name: students
-- Active students by name. Statistics that are not computed yet are null.
select
    u.id, u.name, s.questions_interacted, s.questions_mastered, s.total_questions, s.last_activity_at,
    round(100.0 * s.questions_interacted / nullif(s.total_questions, 0))::integer as completion
from progress.users as u
left join progress.user_progress_stats as s on s.user_id = u.id and s.cohort_id = u.cohort_id
where
    u.cohort_id = :cohort
    and u.deleted_at is null
    and (
        :after::text is null
        or (u.name, u.id) > (select a.name, a.id from progress.users as a where a.id = :after::text)
    )
order by u.name, u.id
limit :most;
