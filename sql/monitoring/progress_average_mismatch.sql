-- Cohorts that are not stale although their row does not match their students' rows: the average should be the mean of
-- 100 * interacted / total over active students, rounded half up. Should be empty.
-- Fix: backfills run progress_stats -p COHORT_ID
select
    w.cohort_id,
    c.name as cohort_name,
    w.average_completion,
    w.mean as average_of_students,
    w.total_students,
    w.students_with_stats,
    w.updated_at
from progress.wrong_averages as w
inner join progress.cohorts as c on w.cohort_id = c.id
order by abs(w.average_completion - w.mean) desc, w.cohort_id;
