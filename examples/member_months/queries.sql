-- name: gyms
select id from public.gyms order by id;

-- name: member_months_units
select gym_id as partition, id as unit from public.members where gym_id = any(:partition_keys::uuid[]);

-- name: member_months
select m.gym_id, m.id as member_id, date_trunc('month', a.activity_date)::date as month, count(*) as visits
from public.members as m
inner join public.member_activities as a on m.id = a.member_id
where m.gym_id = any(:partition_keys::uuid[]) and (:unit_keys::uuid[] is null or m.id = any(:unit_keys::uuid[]))
group by m.gym_id, m.id, date_trunc('month', a.activity_date);

-- name: gyms_of_activities
select m.gym_id from changed_rows as c inner join public.members as m on c.member_id = m.id;

-- name: visitors_without_month
select a.member_id from public.member_activities as a
where not exists (select from attendance.member_months as m where m.member_id = a.member_id);
