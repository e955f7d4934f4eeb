-- What must hold of the progress statistics. Each statement gives the cohorts that break the rule; none is good.

-- name: incomplete_cohorts
-- Cohorts without their row, without a row for every active student, or with rows of others.
select
    cohort_id,
    cohort_name,
    students,
    students_with_stats,
    leftover_stats
from progress.cohort_status
where is_missing
order by created_at, cohort_id;

-- name: out_of_range
-- More questions answered or mastered than there are, an average above 100, or statistics of a later time than now.
select distinct s.cohort_id
from progress.user_progress_stats as s
where s.questions_interacted > s.total_questions or s.questions_mastered > s.total_questions
union
select c.cohort_id
from progress.cohort_stats as c
where c.average_completion > 100
order by cohort_id;

-- name: wrong_averages
-- Cohorts whose average is not the mean of their students, rounded half up. Those that a change has made stale are
-- left out: they are due. Counted once, also where statistics from before the first fill promise a single cohort.
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
    coalesce(div(200 * s.interacted + s.questions * s.students, nullif(2 * s.questions * s.students, 0)), 0) as mean
from progress.cohort_stats as c
left join students as s on c.cohort_id = s.cohort_id
where
    c.average_completion
    <> coalesce(div(200 * s.interacted + s.questions * s.students, nullif(2 * s.questions * s.students, 0)), 0)
    and not exists (
        select 1 from backfill.stale_marks as m
        where m.asset = any(:assets::text[]) and m.partition = c.cohort_id
    )
order by c.cohort_id;
