-- name: gym_keys
select id from attendance.gyms order by id;

-- name: member_month_units
select gym_id as partition, id as unit from attendance.members where gym_id = any(:partition_keys);

-- name: member_months
select m.gym_id, m.id as member_id, date_trunc('month', v.visited_on)::date as month, count(*) as visits
from attendance.members as m
inner join attendance.visits as v on m.id = v.member_id
where m.gym_id = any(:partition_keys) and (:unit_keys::text[] is null or m.id = any(:unit_keys))
group by m.gym_id, m.id, date_trunc('month', v.visited_on);

-- name: gyms_of_visits
select m.gym_id from changed_rows as c inner join attendance.members as m on c.member_id = m.id;

-- name: members_without_month
select m.id from attendance.members as m
where exists (select from attendance.visits as v where v.member_id = m.id)
    and not exists (select from attendance.member_months as a where a.member_id = m.id);
