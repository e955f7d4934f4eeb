-- The last runs that created or counted records: how far, how fast, how long still.
select
    run_id,
    outcome,
    started_at,
    finished_at - started_at as took,
    partitions_done as organizations_done,
    partitions_total as organizations_total,
    units_done as members_done,
    units_total as members_total,
    round(units_per_second::numeric, 1) as members_per_second,
    time_left,
    rows_written,
    failures
from backfill.run_progress
where assets && array['training/employee_training_video_completions', 'training/organization_training_progress']
order by started_at desc
limit 20;
