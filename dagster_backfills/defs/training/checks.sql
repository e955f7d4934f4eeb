-- Checks of the training records. Each statement returns the organizations that break the rule; no rows is a pass.
-- They run right after the first fill, when the statistics may still say that the tables are empty. Therefore they
-- count by index for one member or organization at a time. A join with a full count could be planned as a nested loop
-- that repeats the count for each row.

-- name: organizations_lacking_records
-- Organizations with fewer records than non-deactivated members × videos, and the members that failed. Organizations
-- that have recently become stale are excluded, because they are due anyway.
with lacking as (
    select
        m.organization_id,
        count(*) as members_lacking,
        sum(v.videos - r.records)::bigint as records_missing
    from training.members as m
    cross join (select count(*) as videos from training.training_videos) as v
    cross join
        lateral (
            select count(*) as records
            from training.employee_training_video_completions as c
            where c.member_id = m.id
        ) as r
    where not m.deactivated and r.records < v.videos
    group by m.organization_id
),

failed as (
    select
        f.partition,
        count(*) as members_failed,
        array_to_string((array_agg(f.unit order by f.unit))[:10], ', ') as first_members,
        min(f.message) as message
    from backfill.failures as f
    where f.asset = 'training/employee_training_video_completions' and f.unit is not null and f.resolved_at is null
    group by f.partition
)

select
    o.id || coalesce(' (' || f.first_members || case when f.members_failed > 10 then ', …' else '' end || ')', '')
        as organization,
    o.name,
    l.members_lacking,
    l.records_missing,
    coalesce(f.members_failed, 0) as members_failed,
    f.message
from lacking as l
inner join training.organizations as o on l.organization_id = o.id
left join failed as f on o.id = f.partition
where
    f.partition is not null
    or not exists (
        select 1 from backfill.stale_marks as m
        where
            m.asset = 'training/employee_training_video_completions'
            and m.partition = o.id
            and m.marked_at > now() - make_interval(secs => :seconds)
    )
order by f.partition is null, o.created_at, o.id;

-- name: wrong_progress
-- Organizations whose progress row is missing or differs from their records. Stale ones are excluded: they are due.
select
    s.organization_id,
    p.members,
    p.records,
    p.completed,
    p.percent,
    s.members as members_counted,
    s.records as records_counted,
    s.completed as completed_counted
from training.organization_status as s
left join training.organization_training_progress as p on s.organization_id = p.organization_id
where
    s.stale_since is null
    and (p.members, p.records, p.completed, p.percent) is distinct from (
        s.members, s.records, s.completed, coalesce(floor(100.0 * s.completed / nullif(s.records, 0) + 0.5), 0)
    )
order by s.created_at, s.organization_id;
