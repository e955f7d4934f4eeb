-- Students with more questions interacted or mastered than the cohort has: a progress row names one of the cohort's
-- classes, and a question of another. The sources are to be mended, not the statistics.
select
    s.cohort_id,
    c.name as cohort_name,
    s.user_id,
    s.questions_interacted,
    s.questions_mastered,
    s.total_questions
from progress.user_progress_stats as s
inner join progress.cohorts as c on c.id = s.cohort_id
where greatest(s.questions_interacted, s.questions_mastered) > s.total_questions
order by s.cohort_id, s.user_id;
