-- name: visits
select distinct m.id as member_id, a.activity_date as visited_on
from public.member_activities as a
inner join scoring.members as m on a.member_id::text = m.id
where a.activity_date = any(:partition_keys::date[]);

-- name: days_of_new_members
select a.activity_date
from changed_rows as c
inner join public.member_activities as a on c.id = a.member_id::text
where not exists (select from scoring.visits as v where v.member_id = c.id);
