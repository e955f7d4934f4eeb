-- Statements of the progress assets. To run one in psql, set its variables with \set partition_keys, \set unit_keys.

-- name: user_progress_stats
-- One row per active student of the cohorts. Interacted: a progress row in one of the cohort's classes with any
-- selected or eliminated option. A student without progress has zeros.
with answers as (
    select
        u.id as user_id,
        u.cohort_id,
        count(c.id) filter (
            where cardinality(p.selected_options) > 0 or cardinality(p.eliminated_options) > 0
        ) as questions_interacted,
        count(c.id) filter (where p.is_mastered) as questions_mastered,
        max(p.last_attempt_at) as last_activity_at
    from progress.users as u
    left join (progress.user_progress as p inner join progress.classes as c on p.class_id = c.id)
        on u.id = p.user_id and u.cohort_id = c.cohort_id
    where u.deleted_at is null
        and u.cohort_id = any(:partition_keys::text[])
        and (:unit_keys::text[] is null or u.id = any(:unit_keys::text[]))
    group by u.id
),
questions as (
    select c.cohort_id, count(*) as total_questions
    from progress.classes as c
    inner join progress.modules as m on c.id = m.class_id
    inner join progress.questions as q on m.id = q.module_id
    where c.cohort_id = any(:partition_keys::text[])
    group by c.cohort_id
)
select
    a.user_id,
    a.cohort_id,
    a.questions_interacted::integer as questions_interacted,
    a.questions_mastered::integer as questions_mastered,
    coalesce(q.total_questions, 0)::integer as total_questions,
    a.last_activity_at
from answers as a
left join questions as q on a.cohort_id = q.cohort_id;

-- name: user_progress_stats_units
-- The active students, by cohort.
select u.cohort_id as partition, u.id as unit
from progress.users as u
where u.deleted_at is null and u.cohort_id = any(:partition_keys::text[]);

-- name: cohort_stats
-- One row per cohort. The average over its active students of 100 × interacted / total questions, rounded half up in
-- integer arithmetic to avoid floating-point errors.
with cohorts as (
    select c.id as cohort_id
    from progress.cohorts as c
    where c.id = any(:partition_keys::text[])
),
students as (
    select u.cohort_id, count(*) as total, coalesce(sum(s.questions_interacted), 0) as interacted
    from progress.users as u
    left join progress.user_progress_stats as s on u.id = s.user_id and u.cohort_id = s.cohort_id
    where u.deleted_at is null and u.cohort_id = any(:partition_keys::text[])
    group by u.cohort_id
),
content as (
    select c.cohort_id, count(distinct m.id) as modules, count(q.id) as questions
    from progress.classes as c
    inner join progress.modules as m on c.id = m.class_id
    left join progress.questions as q on m.id = q.module_id
    where c.cohort_id = any(:partition_keys::text[])
    group by c.cohort_id
)
select
    c.cohort_id,
    coalesce(s.total, 0)::integer as total_students,
    coalesce(t.questions, 0)::integer as total_questions,
    coalesce(t.modules, 0)::integer as total_modules,
    case when s.total > 0 and t.questions > 0
            then div(200 * s.interacted + t.questions * s.total, 2 * t.questions * s.total)
        else 0
    end::integer as average_completion
from cohorts as c
left join students as s on c.cohort_id = s.cohort_id
left join content as t on c.cohort_id = t.cohort_id;

-- name: cohort_keys
-- The partitions: every cohort with its name, oldest first.
select c.id, c.name
from progress.cohorts as c
order by c.created_at, c.id;

-- name: cohorts_without_stats
-- Cohorts that have never been computed. They are due even if no change has marked them.
select c.id
from progress.cohorts as c
where not exists (select 1 from progress.cohort_stats as s where s.cohort_id = c.id);

-- name: cohorts_lacking_rows
-- Cohorts without a row, without a row for every active student, or with rows of others.
select cohort_id
from progress.cohort_status
where is_missing;

-- name: cohort_states
-- The status columns of every cohort.
select
    s.cohort_id as partition,
    s.school_name as school,
    s.has_stats,
    s.students,
    s.students_with_stats as with_stats,
    s.classes
from progress.cohort_status as s;
