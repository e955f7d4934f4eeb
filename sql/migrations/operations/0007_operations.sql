-- Dagster's own tables may be in another database and are pruned. This table keeps the history of runs.
create table operations.job_runs (
    run_id text primary key,
    root_run_id text not null,
    job text not null,
    started_by text not null,
    partitions text,
    outcome text not null
    check (outcome in ('queued', 'starting', 'running', 'cancelling', 'succeeded', 'failed', 'cancelled')),
    created_at timestamptz not null,
    started_at timestamptz,
    ended_at timestamptz,
    seen_at timestamptz not null
);
create index job_runs_created_at_idx on operations.job_runs (created_at);
create index job_runs_ended_at_idx on operations.job_runs (ended_at);
create index job_runs_seen_at_idx on operations.job_runs (seen_at);

comment on schema operations is 'The history of runs and of rows written, for all domains.';
comment on table operations.job_runs is 'Runs of the Dagster instance, kept after Dagster has deleted the run.';
comment on column operations.job_runs.root_run_id is 'The first run of a chain of retries; otherwise the run itself.';
comment on column operations.job_runs.job is
'The job''s name, or `materialize` with the asset groups if the run belongs to no job.';
comment on column operations.job_runs.started_by is
'What launched the run: a schedule, a sensor, a backfill, the command line or a user.';
comment on column operations.job_runs.partitions is 'The partition, or the first and last one of a range.';
comment on column operations.job_runs.seen_at is 'Dagster''s last update of the run that is copied here.';

create view operations.job_days as
select
    (r.ended_at at time zone 'UTC')::date as day,
    r.job,
    count(*) as runs,
    count(*) filter (where r.outcome = 'succeeded') as succeeded,
    count(*) filter (where r.outcome = 'failed') as failed,
    count(*) filter (where r.outcome = 'cancelled') as cancelled,
    percentile_cont(0.5) within group (order by extract(epoch from r.ended_at - r.started_at)) as median_seconds,
    percentile_cont(0.95) within group (order by extract(epoch from r.ended_at - r.started_at)) as p95_seconds,
    max(extract(epoch from r.ended_at - r.started_at))::double precision as longest_seconds,
    percentile_cont(0.5) within group (order by extract(epoch from r.started_at - r.created_at)) as median_wait_seconds
from operations.job_runs as r
where r.ended_at is not null
group by 1, 2;
comment on view operations.job_days is
'Outcomes and durations of finished runs by job and UTC end date. A run that never started has no duration.';

create view operations.backfill_days as
select
    (b.committed_at at time zone 'UTC')::date as day,
    split_part(b.asset, '/', 1) as domain,
    b.asset,
    count(distinct b.run_id) as runs,
    count(*) as batches,
    sum(b.units)::bigint as units,
    sum(b.rows_inserted + b.rows_updated + b.rows_deleted)::bigint as rows_written,
    sum(b.rows_unchanged)::bigint as rows_unchanged,
    sum(b.failures)::bigint as failures,
    sum(b.seconds) as busy_seconds
from backfill.batches as b
group by 1, 2, 3;
comment on view operations.backfill_days is
'Batches, units, rows and failed units by asset and UTC date of the batch, for all domains.';

create view operations.open_failures as
select
    f.asset,
    f.partition,
    f.unit,
    f.message,
    f.error_class,
    f.attempts,
    f.first_seen,
    f.last_seen,
    f.run_id,
    r.job
from backfill.failures as f
left join operations.job_runs as r on r.run_id = f.run_id
where f.resolved_at is null;
comment on view operations.open_failures is
'Open failures: units that could not be written, with the latest run and its job.';
