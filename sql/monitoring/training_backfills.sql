-- Backfills that have records left, with the number that a rollback would remove and keep.
select
    c.backfill_id,
    min(c.created_at) as began,
    count(distinct c.organization_id) as organizations,
    count(*) filter (where c.completed_at is null) as would_remove,
    count(c.completed_at) as would_keep
from training.employee_training_video_completions as c
where c.backfill_id is not null
group by c.backfill_id
order by began desc;
