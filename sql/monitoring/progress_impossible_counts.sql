-- Students with more questions interacted or mastered than the cohort has. The cause is a progress row with a class of
-- the cohort and a question of another one. Fix the source tables, not the statistics.
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
