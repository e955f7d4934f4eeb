-- Which ids an import has settled is known from the tables, and no longer from hashes in the worker's memory.

-- Ids of a job's file that were in the database before it: skipped, updated or refused. Those that it inserted need no
-- line here, as they are its sessions.
create table kintell.backfill_job_claims (
    job_id uuid not null references kintell.backfill_jobs on delete cascade,
    external_session_id text not null,
    primary key (job_id, external_session_id)
);
alter table kintell.backfill_job_batches drop column claimed_ids;
