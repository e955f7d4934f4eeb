-- Undoing a backfill: what it created and nobody has completed since. Each statement runs in psql.
-- `backfill_id` null means every incomplete record, whoever created it.

-- name: preview
-- What a rollback removes and keeps, by organization, the oldest first.
select
    c.organization_id,
    count(*) filter (where c.completed_at is null) as remove,
    count(c.completed_at) as keep
from training.employee_training_video_completions as c
inner join training.organizations as o on c.organization_id = o.id
where :backfill_id::text is null or c.backfill_id = :backfill_id::text
group by c.organization_id, o.created_at
order by o.created_at, c.organization_id;

-- name: take_statistics!
-- Where the role may not (before Postgres 17 only the owner may), that is a warning, and autovacuum takes them, later.
analyze (skip_locked) training.employee_training_video_completions (member_id, completed_at, backfill_id);

-- name: lock_organizations
-- No backfill writes these organizations until the transaction ends.
select backfill.lock_partitions(:asset::text, :organizations::text[]);

-- name: remove_records!
-- Remove the incomplete records of the organizations. One that is being completed at this moment is waited for, and
-- stays.
delete from training.employee_training_video_completions as c
using training.members as m
where
    m.organization_id = any(:organizations::text[])
    and c.member_id = m.id
    and c.completed_at is null
    and (:backfill_id::text is null or c.backfill_id = :backfill_id::text);

-- name: known_backfill$
-- Whether anything is known of a backfill by that id: a record of it, or a run that wrote.
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
-- The backfills that created records which are still there, the newest first.
select c.backfill_id
from training.employee_training_video_completions as c
where c.backfill_id is not null
group by c.backfill_id
order by min(c.created_at) desc, c.backfill_id
limit :shown::integer;
