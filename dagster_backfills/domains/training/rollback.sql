-- Roll back a backfill: its records that have not been completed since. Each statement runs in psql.
-- `backfill_id` null means all incomplete records.

-- name: preview
-- Records that a rollback removes and keeps, by organization, oldest first.
select
    c.organization_id,
    count(*) filter (where c.completed_at is null) as remove,
    count(c.completed_at) as keep
from training.employee_training_video_completions as c
inner join training.organizations as o on c.organization_id = o.id
where :backfill_id::text is null or c.backfill_id = :backfill_id::text
group by c.organization_id, o.created_at
order by o.created_at, c.organization_id;

-- name: analyze!
-- Without the privilege (before Postgres 17: ownership) this only gives a warning; autovacuum will analyze it later.
analyze (skip_locked) training.employee_training_video_completions (member_id, completed_at, backfill_id);

-- name: lock_organizations
-- Locks out backfills of these organizations until the transaction ends.
select backfill.lock_partitions(:asset::text, :organizations::text[]);

-- name: remove_records!
-- Remove the organizations' incomplete records. A record that another transaction is completing is kept.
delete from training.employee_training_video_completions as c
using training.members as m
where
    m.organization_id = any(:organizations::text[])
    and c.member_id = m.id
    and c.completed_at is null
    and (:backfill_id::text is null or c.backfill_id = :backfill_id::text);

-- name: known_backfill$
-- Whether a backfill with this ID exists: it has created a record, or has a run.
select
    exists (
        select 1 from training.employee_training_video_completions as c
        where c.backfill_id = :backfill_id::text
    )
    or exists (
        select 1 from backfill.runs as r
        where :backfill_id::text in (r.run_id, r.root_run_id) and :asset::text = any(r.assets)
    );

-- name: backfills
-- Backfills whose records still exist, newest first.
select c.backfill_id
from training.employee_training_video_completions as c
where c.backfill_id is not null
group by c.backfill_id
order by min(c.created_at) desc, c.backfill_id
limit :shown::integer;
