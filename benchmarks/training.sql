-- Data for the training benchmark, and the statement that it is compared with.

-- name: load_videos
insert into training.training_videos (id, title, position)
select
    'sat-' || n,
    'Video ' || n,
    n
from generate_series(1, :videos::integer) as n;

-- name: load_organizations
insert into training.organizations (id, name, created_at)
select
    'org_' || substr(md5('organization ' || n), 1, 12),
    'Organization ' || n,
    timestamptz '2024-01-01' + n * interval '1 minute'
from generate_series(1, :organizations::integer) as n;

-- name: load_members
-- Skewed: a few organizations have hundreds of times as many members as most. One member in thirty-one is deactivated.
-- IDs are random, like those of the source system.
insert into training.members (id, organization_id, user_email, deactivated)
select
    'mem_' || substr(md5('member ' || n), 1, 16),
    'org_' || substr(md5(
        'organization ' || 1 + floor(
            :organizations::integer * power((hashtext('place ' || n)::bigint + 2147483648) / 4294967296.0, 2)
        )::integer
    ), 1, 12),
    'member' || n || '@example.org',
    mod(n, 31) = 0
from generate_series(1, :members::integer) as n;

-- name: bare
-- The statement that someone would type into psql.
insert into training.employee_training_video_completions (organization_id, member_id, video_id, backfill_id)
select
    m.organization_id,
    m.id,
    v.id,
    'by hand'
from training.members as m
cross join training.training_videos as v
where not m.deactivated
on conflict (member_id, video_id) do nothing;

-- name: start_again!
truncate training.employee_training_video_completions, training.organization_training_progress;

-- name: count_records
select count(*) from training.employee_training_video_completions;

-- name: organizations_lacking
select count(*) from training.organization_status as s
where s.missing <> 0 or not s.has_progress or s.stale_since is not null;
