-- Cohorts that are not stale, and whose row does not follow from the rows of their students: the average is the mean
-- over active students of 100 * interacted / total, rounded half up. No row is right; a row here is an error.
-- (All students of a cohort have one total, so the quotient of the sums is that mean, without rounding in between.)
-- Mend: backfills progress run COHORT_ID
with students as (
    select
        cohort_id,
        count(*) as students,
        coalesce(round(100.0 * sum(questions_interacted) / nullif(sum(total_questions), 0)), 0) as average
    from progress.user_progress_stats
    group by cohort_id
)

select
    cs.cohort_id,
    c.name as cohort_name,
    cs.average_completion,
    coalesce(s.average, 0) as average_of_students,
    cs.total_students,
    coalesce(s.students, 0) as students_with_stats,
    cs.updated_at
from progress.cohort_stats as cs
inner join progress.cohorts as c on c.id = cs.cohort_id
left join students as s on s.cohort_id = cs.cohort_id
where
    (cs.average_completion <> coalesce(s.average, 0) or cs.total_students <> coalesce(s.students, 0))
    and not exists (
        select 1
        from backfill.stale_marks as m
        where
            m.asset in ('progress/user_progress_stats', 'progress/cohort_stats')
            and m.partition = cs.cohort_id
    )
order by abs(cs.average_completion - coalesce(s.average, 0)) desc, cs.cohort_id;
