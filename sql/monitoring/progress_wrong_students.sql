-- Students whose row is missing, left over or in the wrong cohort, one row per student.
-- Fix: backfills run progress_stats --which missing
select
    coalesce(u.id, s.user_id) as user_id,
    coalesce(u.cohort_id, s.cohort_id) as cohort_id,
    case
        when s.user_id is null then 'missing'
        when u.id is null then 'left over'
        else 'in cohort ' || s.cohort_id
    end as stats
from (
    select
        id,
        cohort_id
    from progress.users
    where deleted_at is null
) as u
full join progress.user_progress_stats as s on u.id = s.user_id
where u.cohort_id is distinct from s.cohort_id
order by cohort_id, user_id;
