-- Cohorts that need a backfill, and why. Empty if everything is up to date.
-- Fix: backfills run progress_stats
select
    school_name,
    cohort_name,
    cohort_id,
    has_stats,
    students,
    students_with_stats,
    leftover_stats,
    stale_since
from progress.cohort_status
where needs_backfill
order by is_missing desc, case when not is_missing then stale_since end, created_at, cohort_id;
