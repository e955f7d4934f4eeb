-- name: platform_users
select id, email, concat_ws(' ', first_name, last_name) as name, role from public.users;
