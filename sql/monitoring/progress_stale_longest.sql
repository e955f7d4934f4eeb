-- Cohorts whose statistics have been stale the longest, with the number of changes that wait. Minutes that keep
-- growing mean that automation is off, or that the cohort fails: see progress_open_failures.sql.
select
    s.partition as cohort_id,
    c.name as cohort_name,
    s.asset,
    s.since,
    round(extract(epoch from now() - s.since) / 60) as minutes,
    s.changes
from backfill.stale as s
left join progress.cohorts as c on c.id = s.partition
where s.asset in ('progress/user_progress_stats', 'progress/cohort_stats')
order by s.since, s.partition, s.asset
limit 50;
