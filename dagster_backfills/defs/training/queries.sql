-- Statements of the training assets. To run one in psql, set its variables with \set partition_keys, \set unit_keys.

-- name: missing_completions
-- The missing records of the organizations: one for each non-deactivated member and each video. An organization whose
-- members have as many records as members × videos lacks none, because a member has at most one record per video. Only
-- if it has fewer are its members checked one by one.
with lacking as materialized (
    select o.id
    from training.organizations as o
    where
        o.id = any(:partition_keys::text[])
        and (
            :unit_keys::text[] is not null
            or (
                select count(*)
                from training.employee_training_video_completions as c
                where c.organization_id = o.id
            ) - (
                select count(*)
                from training.members as m
                inner join training.employee_training_video_completions as c on m.id = c.member_id
                where m.organization_id = o.id and m.deactivated
            ) < (
                select count(*)
                from training.members as m
                where m.organization_id = o.id and not m.deactivated
            ) * (select count(*) from training.training_videos)
        )
)

select
    m.organization_id,
    m.id as member_id,
    v.id as video_id,
    :backfill_id::text as backfill_id
from lacking as l
inner join training.members as m on l.id = m.organization_id
cross join training.training_videos as v
where
    not m.deactivated
    and (:unit_keys::text[] is null or m.id = any(:unit_keys::text[]))
    and (select count(*) from training.employee_training_video_completions as c where c.member_id = m.id)
    < (select count(*) from training.training_videos);

-- name: members_due_records
-- The non-deactivated members, by organization.
select
    m.organization_id as partition,
    m.id as unit
from training.members as m
where m.organization_id = any(:partition_keys::text[]) and not m.deactivated;

-- name: organization_progress
-- One row per organization: its non-deactivated members, their records, how many of these are completed, and that share
-- in percent, rounded half up in integer arithmetic to avoid floating-point errors. All records are counted in the
-- indexes by organization, and those of deactivated members are subtracted.
with counted as (
    select
        o.id as organization_id,
        m.members,
        c.records - d.records as records,
        c.completed - d.completed as completed
    from training.organizations as o
    cross join
        lateral (
            select count(*) as members
            from training.members as mm
            where mm.organization_id = o.id and not mm.deactivated
        ) as m
    cross join
        lateral (
            select
                (
                    select count(*)
                    from training.employee_training_video_completions as cc
                    where cc.organization_id = o.id
                ) as records,
                (
                    select count(*)
                    from training.employee_training_video_completions as cc
                    where cc.organization_id = o.id and cc.completed_at is not null
                ) as completed
        ) as c
    cross join
        lateral (
            select
                count(*) as records,
                count(cc.completed_at) as completed
            from training.members as mm
            inner join training.employee_training_video_completions as cc on mm.id = cc.member_id
            where mm.organization_id = o.id and mm.deactivated
        ) as d
    where o.id = any(:partition_keys::text[])
)

select
    c.organization_id,
    c.members::integer as members,
    c.records::integer as records,
    c.completed::integer as completed,
    coalesce((200 * c.completed + c.records) / nullif(2 * c.records, 0), 0)::integer as percent
from counted as c;

-- name: organization_keys
-- The partitions: every organization with its name, oldest first.
select o.id, o.name
from training.organizations as o
order by o.created_at, o.id;

-- name: organizations_without_progress
-- Organizations that have never been counted. They are due even if no change has marked them.
select o.id
from training.organizations as o
where not exists (select 1 from training.organization_training_progress as p where p.organization_id = o.id);

-- name: organizations_lacking_rows
-- Organizations without a progress row, or with missing records.
select s.organization_id
from training.organization_status as s
where s.missing > 0 or not s.has_progress;

-- name: organization_states
-- The status columns of every organization, counted from its records.
select
    s.organization_id as partition,
    s.members,
    s.records,
    s.missing as to_create,
    s.completed,
    s.percent
from training.organization_status as s;
