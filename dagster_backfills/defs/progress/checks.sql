-- Checks of the progress statistics. Each statement returns the cohorts that break the rule; no rows is a pass.

-- name: incomplete_cohorts
-- Cohorts without a row, without a row for every active student, or with rows of others.
select
    cohort_id,
    students,
    students_with_stats,
    leftover_stats
from progress.cohort_status
where is_missing
order by created_at, cohort_id;

-- name: out_of_range
-- Cohorts with a student who has more questions answered or mastered than exist, or with an average above 100.
select distinct s.cohort_id
from progress.user_progress_stats as s
where s.questions_interacted > s.total_questions or s.questions_mastered > s.total_questions
union
select c.cohort_id
from progress.cohort_stats as c
where c.average_completion > 100
order by cohort_id;

-- name: wrong_averages
-- Cohorts whose average is not the mean of their students. Stale cohorts are excluded, because they are due anyway.
select
    w.cohort_id,
    w.average_completion,
    w.mean
from progress.wrong_averages as w
where w.average_completion <> w.mean
order by w.cohort_id;
