-- name: running
-- Runs in progress: progress, speed, time left, and time since the last batch.
select
    p.run_id,
    array_to_string(p.assets, ', ') as assets,
    p.partitions_total,
    p.partitions_done,
    p.units_total,
    p.units_done,
    p.failures,
    p.units_per_second,
    p.time_left,
    clock_timestamp() - coalesce(
        (select max(b.committed_at) from backfill.batches as b where b.run_id = p.run_id and b.step = p.step),
        p.started_at
    ) as silent_for
from backfill.run_progress as p
where p.outcome = 'running'
order by p.started_at;

-- name: held
-- Settings of pause and throttle, and undone partitions, which automation skips.
select
    c.backfill as name,
    concat_ws(
        ', ',
        case when c.paused then 'paused' end,
        'waits ' || c.rest_seconds || ' s between batches',
        'at most ' || c.rows_per_second || ' rows/s',
        'writes only from ' || to_char(c.window_start, 'HH24:MI') || ' to ' || to_char(c.window_end, 'HH24:MI') || ' '
        || c.zone
    ) as held,
    c.changed_at as since
from backfill.controls as c
where c.paused or c.rest_seconds is not null or c.rows_per_second is not null or c.window_start is not null
union all
select
    u.asset as name,
    count(*) || case when count(*) = 1 then ' partition' else ' partitions' end || ' undone, skipped by automation' as held,
    max(u.undone_at) as since
from backfill.undone as u
group by u.asset
order by name;

-- name: imports
select
    h.id as job,
    h.file_name,
    h.status,
    h.activity,
    h.total_rows,
    h.processed_rows,
    h.failed_rows,
    h.rows_per_second,
    case when h.status = 'running' then make_interval(
        secs => (greatest(h.total_rows - h.processed_rows, 0) / nullif(h.rows_per_second, 0))::double precision
    ) end as time_left,
    h.heartbeat_age as silent_for,
    h.run_id
from kintell.backfill_job_history as h
where h.status in ('pending', 'running', 'paused')
order by h.created_at;

-- name: queue
select
    m.job_type,
    m.waiting,
    m.scheduled,
    m.processing,
    make_interval(secs => m.oldest_waiting_seconds) as oldest_waiting,
    m.completed_last_hour,
    m.failed_last_hour,
    m.mean_seconds
from jobs.queue_metrics as m
order by m.job_type;

-- name: failures
select
    f.asset,
    count(*) as failures,
    max(f.last_seen) as last_seen,
    (array_agg(f.message order by f.last_seen desc, f.id desc))[1] as last_message
from backfill.failures as f
where f.resolved_at is null
group by f.asset
order by f.asset;
