-- name: watermark$
select max(seen_at) from operations.job_runs;

-- name: store_runs
insert into operations.job_runs as j (
    run_id, root_run_id, job, started_by, partitions, outcome, created_at, started_at, ended_at, seen_at
)
select
    r.run_id, r.root_run_id, r.job, r.started_by, r.partitions, r.outcome, r.created_at, r.started_at, r.ended_at,
    r.seen_at
from unnest(
    :run_ids::text[], :root_run_ids::text[], :jobs::text[], :started_bys::text[], :partitions::text[],
    :outcomes::text[], :created_ats::timestamptz[], :started_ats::timestamptz[], :ended_ats::timestamptz[],
    :seen_ats::timestamptz[]
) as r (run_id, root_run_id, job, started_by, partitions, outcome, created_at, started_at, ended_at, seen_at)
on conflict (run_id) do update
set
    outcome = excluded.outcome, started_at = excluded.started_at, ended_at = excluded.ended_at,
    seen_at = excluded.seen_at
where
    (j.outcome, j.started_at, j.ended_at, j.seen_at) is distinct from
    (excluded.outcome, excluded.started_at, excluded.ended_at, excluded.seen_at)
    and j.seen_at <= excluded.seen_at;

-- name: close_ended_runs!
-- A killed run could not record its end in the engine's account.
update backfill.runs as r set outcome = 'interrupted', finished_at = greatest(j.ended_at, r.started_at)
from operations.job_runs as j
where j.run_id = r.run_id and r.outcome = 'running' and j.ended_at is not null;

-- name: forget_runs!
delete from operations.job_runs as j where j.seen_at < now() - make_interval(days => :days::integer);

-- name: outcomes_by_day
-- Runs of the last days by outcome, including days without runs, oldest first.
select
    d.day::date as day,
    coalesce(sum(j.succeeded), 0)::bigint as succeeded,
    coalesce(sum(j.failed), 0)::bigint as failed,
    coalesce(sum(j.cancelled), 0)::bigint as cancelled
from generate_series(:until::date - (:days - 1), :until::date, interval '1 day') as d (day)
left join operations.job_days as j on j.day = d.day::date
group by d.day
order by d.day;

-- name: durations_by_job
-- Jobs of the last days, by total duration, longest first.
select
    r.job,
    count(*) as runs,
    count(*) filter (where r.outcome = 'failed') as failed,
    count(*) filter (where r.outcome = 'cancelled') as cancelled,
    percentile_cont(0.5) within group (order by extract(epoch from r.ended_at - r.started_at)) as median_seconds,
    percentile_cont(0.95) within group (order by extract(epoch from r.ended_at - r.started_at)) as p95_seconds,
    max(extract(epoch from r.ended_at - r.started_at))::double precision as longest_seconds
from operations.job_runs as r
where
    r.ended_at >= (:until::date - (:days - 1))::timestamp at time zone 'UTC'
    and r.ended_at < (:until::date + 1)::timestamp at time zone 'UTC'
group by r.job
order by sum(r.ended_at - r.started_at) desc nulls last, r.job;

-- name: written_by_domain
select
    b.domain,
    sum(b.batches)::bigint as batches,
    sum(b.units)::bigint as units,
    sum(b.rows_written)::bigint as rows_written,
    sum(b.failures)::bigint as failures,
    round(sum(b.busy_seconds)::numeric, 1)::double precision as busy_seconds
from operations.backfill_days as b
where b.day between :until::date - (:days - 1) and :until::date
group by b.domain
order by b.domain;

-- name: failing_units
-- The first open failures of a run, and their total number.
select f.asset, f.partition, f.unit, f.message, count(*) over () as total
from backfill.failures as f
where f.run_id = :run_id and f.resolved_at is null
order by f.id
limit :shown;

-- name: runs_with_new_failures
-- Those of the given runs with open failures of units that had not failed before.
select distinct f.run_id
from backfill.failures as f
where f.run_id = any(:run_ids::text[]) and f.attempts = 1 and f.resolved_at is null;

-- name: thin_event_log^
-- Thin out one page of Dagster's event log, in order of ID, which is nearly chronological. Deletes old events of finished
-- runs, but keeps asset events: Dagster derives the materialized partitions from them.
with page as materialized (
    select
        l.id,
        l.run_id,
        l.asset_key
    from event_logs as l
    where l.id > :position and l.timestamp < (now() at time zone 'UTC') - make_interval(days => :days)
    order by l.id
    limit :rows
),

removed as (
    delete from event_logs as l
    using page as p, runs as r
    where
        l.id = p.id
        and p.asset_key is null
        and r.run_id = p.run_id
        and r.status in ('SUCCESS', 'FAILURE', 'CANCELED')
    returning l.id
)

select
    max(p.id) as reached,
    (select count(*) from removed) as removed
from page as p;
