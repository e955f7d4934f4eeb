-- Cohorts that are not stale, and whose row does not follow from the rows of their students: the average is the mean
-- over active students of 100 * interacted / total, rounded half up. No row is right; a row here is an error.
-- Mend: backfills run progress_stats -p COHORT_ID
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
