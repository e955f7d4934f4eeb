-- What the command line reads about cohorts. The columns are those of the view progress.cohort_status.

-- name: list_cohorts
select *
from progress.cohort_status
where cast(:school_ids as text[]) is null or school_id = any(:school_ids)
order by school_name, school_id, cohort_name, cohort_id;

-- name: cohorts_by_id
select *
from progress.cohort_status
where cohort_id = any(:cohort_ids)
order by school_name, school_id, cohort_name, cohort_id;

-- Rows that are missing come first, then the oldest change that no computation has seen.
-- name: next_cohort
select *
from progress.cohort_status
where needs_backfill
order by is_missing desc, case when not is_missing then stale_since end, created_at, cohort_id
limit 1;

-- name: cohort_names
select
    id,
    name
from progress.cohorts
order by name, id;

-- name: school_names
select
    id,
    name
from progress.schools
order by name, id;

-- name: select_all
select id as cohort_id
from progress.cohorts
order by created_at, id;

-- name: select_missing
select cohort_id
from progress.cohort_status
where is_missing
order by created_at, cohort_id;

-- name: select_stale
select cohort_id
from progress.cohort_status
where stale_since is not null
order by stale_since, created_at, cohort_id;

-- name: select_failed
select c.id as cohort_id
from progress.cohorts as c
where
    exists (
        select 1
        from backfill.failures as f
        where
            f.asset in ('progress/user_progress_stats', 'progress/cohort_stats')
            and f.partition = c.id
            and f.resolved_at is null
    )
order by c.created_at, c.id;

-- name: select_needed
select cohort_id
from progress.cohort_status
where
    needs_backfill
    or exists (
        select 1
        from backfill.failures as f
        where
            f.asset in ('progress/user_progress_stats', 'progress/cohort_stats')
            and f.partition = cohort_id
            and f.resolved_at is null
    )
order by created_at, cohort_id;

-- What automation should compute now. A cohort that failed waits twice as long after each try, an hour at most.
-- name: select_due
select c.id as cohort_id
from progress.cohorts as c
where
    (
        exists (
            select 1
            from backfill.stale_marks as m
            where m.asset in ('progress/user_progress_stats', 'progress/cohort_stats') and m.partition = c.id
        )
        or not exists (select 1 from progress.cohort_stats as s where s.cohort_id = c.id)
    )
    and not exists (
        select 1
        from backfill.failures as f
        where
            f.asset in ('progress/user_progress_stats', 'progress/cohort_stats')
            and f.partition = c.id
            and f.unit is null
            and f.resolved_at is null
            and f.last_seen > now() - least(interval '1 hour', interval '30 seconds' * 2 ^ least(f.attempts, 12))
    )
order by c.created_at, c.id;
