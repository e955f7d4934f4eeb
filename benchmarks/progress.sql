-- Statements of the progress benchmark.

-- name: bare!
-- Uses the same work_mem as the engine.
begin;
set local work_mem = '64MB';
insert into progress.user_progress_stats as s (
    user_id, cohort_id, questions_interacted, questions_mastered, total_questions, last_activity_at
)
:users
on conflict (user_id) do update set
    cohort_id = excluded.cohort_id,
    questions_interacted = excluded.questions_interacted,
    questions_mastered = excluded.questions_mastered,
    total_questions = excluded.total_questions,
    last_activity_at = excluded.last_activity_at,
    updated_at = now()
where (s.cohort_id, s.questions_interacted, s.questions_mastered, s.total_questions, s.last_activity_at)
    is distinct from (
        excluded.cohort_id,
        excluded.questions_interacted,
        excluded.questions_mastered,
        excluded.total_questions,
        excluded.last_activity_at
    );
insert into progress.cohort_stats as s (
    cohort_id, total_students, total_questions, total_modules, average_completion
)
:cohorts
on conflict (cohort_id) do update set
    total_students = excluded.total_students,
    total_questions = excluded.total_questions,
    total_modules = excluded.total_modules,
    average_completion = excluded.average_completion,
    updated_at = now()
where (s.total_students, s.total_questions, s.total_modules, s.average_completion)
    is distinct from (
        excluded.total_students, excluded.total_questions, excluded.total_modules, excluded.average_completion
    );
commit;

-- name: empty!
truncate progress.user_progress_stats, progress.cohort_stats, backfill.runs cascade;

-- name: remember!
drop table if exists bare_user, bare_cohort;
create table bare_user as
select user_id, cohort_id, questions_interacted, questions_mastered, total_questions, last_activity_at
from progress.user_progress_stats;
create table bare_cohort as
select cohort_id, total_students, total_questions, total_modules, average_completion
from progress.cohort_stats;

-- name: differences
select
    (
        select count(*)
        from bare_user as b
        full join progress.user_progress_stats as s on s.user_id = b.user_id
        where (b.cohort_id, b.questions_interacted, b.questions_mastered, b.total_questions, b.last_activity_at)
            is distinct from (
                s.cohort_id, s.questions_interacted, s.questions_mastered, s.total_questions, s.last_activity_at
            )
    )
    + (
        select count(*)
        from bare_cohort as b
        full join progress.cohort_stats as s on s.cohort_id = b.cohort_id
        where (b.total_students, b.total_questions, b.total_modules, b.average_completion)
            is distinct from (s.total_students, s.total_questions, s.total_modules, s.average_completion)
    );

-- name: last_step_seconds
-- From the first step's start to the last step's end; the second step finds nothing left to do.
select extract(epoch from max(e.timestamp) - min(e.timestamp))
from dagster.event_logs as e
where e.dagster_event_type in ('STEP_START', 'STEP_SUCCESS')
group by e.run_id
order by max(e.id) desc
limit 1;

-- name: some_cohorts
-- Cohorts of about the median size, by number of students.
select cohort_id
from (
    select cohort_id, row_number() over (order by count(*), cohort_id) as place, count(*) over () as cohorts
    from progress.users
    where deleted_at is null
    group by cohort_id
) as ranked
order by abs(place - cohorts / 2), cohort_id
limit :count;

-- name: batches_of_last_run
-- Milliseconds of each batch, including both tables.
select max(b.seconds) * 1000
from backfill.batches as b
where b.run_id = (select r.run_id from backfill.runs as r order by r.started_at desc limit 1)
group by b.batch_id;
