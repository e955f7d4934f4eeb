-- name: organizations
select id from public."Organization" order by "createdAt", id;

-- name: members
select "organizationId" as partition, id as unit
from public."Member"
where "organizationId" = any(:partition_keys) and not deactivated;

-- name: missing_completions
-- The table has no column for the organization, so the query returns it as `partition`.
select m."organizationId" as partition, m.id as "memberId", v.id as "videoId"
from public."Member" as m
cross join unnest(array['sat-1', 'sat-2', 'sat-3', 'sat-4', 'sat-5']) as v (id)
where m."organizationId" = any(:partition_keys)
    and (:unit_keys::text[] is null or m.id = any(:unit_keys))
    and not m.deactivated;
