-- name: gym_keys
select id from public.gyms order by id;

-- name: gyms
select id, name from public.gyms where id = any(:partition_keys::uuid[]);

-- name: coaches
select id, gym_id from public.users where role = 'coach' and gym_id = any(:partition_keys::uuid[]);

-- name: members_units
select gym_id as partition, id as unit from public.members where gym_id = any(:partition_keys::uuid[]);

-- name: members
select id, gym_id, first_name, last_name, status, joined_date
from public.members
where gym_id = any(:partition_keys::uuid[]) and (:unit_keys::uuid[] is null or id = any(:unit_keys::uuid[]));
