-- What operators look back on: every run of the Dagster instance, and what was done by day, in all domains.

-- One row a run. Dagster's own tables may lie in another database and are cleaned up; this is the lasting account.
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

comment on schema operations is 'The history of runs and of what was written, in all domains.';
comment on table operations.job_runs is 'One row a run of the Dagster instance, kept though Dagster forgets the run.';
comment on column operations.job_runs.root_run_id is 'The first run of a chain of retries; the run itself otherwise.';
comment on column operations.job_runs.job is
'Name of the job; `materialize` with the groups of assets where the run belongs to no job.';
comment on column operations.job_runs.started_by is
'What launched it: a schedule, a sensor, a backfill, the command line or a person.';
comment on column operations.job_runs.partitions is 'The partition, or the first and last of the range, that was asked for.';
comment on column operations.job_runs.seen_at is 'When Dagster changed the run last, as far as it is copied.';

-- Ended runs by UTC day of their end.
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
'Outcomes and durations of runs by job and UTC day of their end. A run that never started has no duration.';

-- What the engine wrote, by UTC day of the batch.
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
comment on view operations.backfill_days is 'Batches, units, rows and failing units by asset and UTC day, in all domains.';

-- What is broken now, with the job whose run said so last.
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
comment on view operations.open_failures is 'Units that could not be written and have not been since, with the last run and its job.';
