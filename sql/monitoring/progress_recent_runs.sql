-- The last runs that computed progress statistics: how far, how fast, how long still.
select
    run_id,
    outcome,
    started_at,
    finished_at - started_at as took,
    partitions_done,
    partitions_total,
    units_done as students_done,
    units_total as students_total,
    round(units_per_second::numeric, 1) as students_per_second,
    time_left,
    rows_written,
    failures
from backfill.run_progress
where assets && array['progress/user_progress_stats', 'progress/cohort_stats']
order by started_at desc
limit 20;
