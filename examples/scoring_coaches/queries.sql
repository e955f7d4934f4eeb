-- name: member_coaches
select c.coach_id, c.member_id
from public.member_coaches as c
inner join scoring.members as m on c.member_id::text = m.id
inner join scoring.coaches as h on c.coach_id::text = h.id;
