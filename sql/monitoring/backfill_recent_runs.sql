-- The latest runs of all backfills: progress, speed, time left. Units are members or students, for example.
select
    assets,
    run_id,
    outcome,
    started_at,
    finished_at - started_at as took,
    partitions_done,
    partitions_total,
    units_done,
    units_total,
    round(units_per_second::numeric, 1) as units_per_second,
    time_left,
    rows_written,
    failures
from backfill.run_progress
order by started_at desc
limit 20;
