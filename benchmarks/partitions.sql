-- Data for the partitions benchmark: many small cohorts.

-- name: load_cohorts
-- :cohorts cohorts, each with a class, a module and three questions.
with schools as (
    insert into progress.schools (id, name)
    select 'school-' || n, 'School ' || n
    from generate_series(0, 9) as n
),
cohorts as (
    insert into progress.cohorts (id, school_id, name, created_at)
    select
        'cohort-' || to_char(n, 'FM00000'),
        'school-' || mod(n, 10),
        'Cohort ' || n,
        timestamptz '2024-01-01 00:00+00' + n * interval '1 minute'
    from generate_series(0, :cohorts - 1) as n
),
classes as (
    insert into progress.classes (id, cohort_id)
    select 'class-' || n, 'cohort-' || to_char(n, 'FM00000')
    from generate_series(0, :cohorts - 1) as n
),
modules as (
    insert into progress.modules (id, class_id)
    select 'module-' || n, 'class-' || n
    from generate_series(0, :cohorts - 1) as n
)
insert into progress.questions (id, module_id)
select 'question-' || n || '-' || q, 'module-' || n
from generate_series(0, :cohorts - 1) as n, generate_series(0, 2) as q;

-- name: load_students
-- Three students per cohort; the n-th student has answered some of the first n questions.
insert into progress.users (id, cohort_id, name, email)
select
    'user-' || n || '-' || s,
    'cohort-' || to_char(n, 'FM00000'),
    'Student ' || s,
    'student-' || n || '-' || s || '@example.org'
from generate_series(0, :cohorts - 1) as n, generate_series(0, 2) as s;

-- name: load_answers
insert into progress.user_progress (
    user_id, question_id, class_id, selected_options, is_mastered, last_attempt_at
)
select
    'user-' || n || '-' || s,
    'question-' || n || '-' || q,
    'class-' || n,
    case when mod(n + s + q, 4) = 0 then '{}' else array['a'] end,
    mod(n + q, 3) = 0,
    timestamptz '2024-06-01 00:00+00' + n * interval '1 second'
from generate_series(0, :cohorts - 1) as n, generate_series(0, 2) as s, generate_series(0, 2) as q
where q < s;

-- name: make_breakable
-- Makes writes of statistics fail for the cohorts in `benchmark_broken`, like a violated constraint.
create table public.benchmark_broken (cohort_id text primary key);
grant select on public.benchmark_broken to public;
create function public.refuse_broken() returns trigger
language plpgsql as $$
begin
    if exists (select from public.benchmark_broken as b where b.cohort_id = new.cohort_id) then
        raise check_violation using message = 'broken on purpose';
    end if;
    return new;
end
$$;
create trigger refuse_broken before insert or update on progress.cohort_stats
for each row execute function public.refuse_broken();

-- name: break_cohorts
insert into public.benchmark_broken (cohort_id)
select unnest(:broken::text[]);

-- name: mend_cohorts
truncate public.benchmark_broken;

-- name: mark_scattered_stale
-- Marks every tenth of :cohorts cohorts.
select backfill.mark_stale('progress/cohort_stats', array(
    select 'cohort-' || to_char(n, 'FM00000')
    from generate_series(0, :cohorts - 1) as n
    where mod(n, 10) = 5
));

-- name: stale_left
select count(distinct partition) from backfill.stale_marks;

-- name: cohorts_without_stats
select count(*)
from progress.cohorts as c
where not exists (select from progress.cohort_stats as s where s.cohort_id = c.id)
    or 3 <> (select count(*) from progress.user_progress_stats as u where u.cohort_id = c.id);
