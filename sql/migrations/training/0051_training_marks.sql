-- Records, whoever adds them. A backfill that counts them in the same transaction clears the mark again; one that does
-- not, or that dies between the two, leaves it. A record that is deleted is not asked back here: a rollback that
-- removes it means it.
create or replace function training.completions_changed() returns trigger
language plpgsql
security definer
set search_path = pg_catalog, pg_temp
as $$
declare
    changed text[];
begin
    if tg_op = 'INSERT' then
        changed := array(select distinct n.organization_id from new_rows as n);
    elsif tg_op = 'DELETE' then
        changed := array(select distinct o.organization_id from old_rows as o);
    else
        changed := array(
            select distinct u.organization_id
            from old_rows as o
            inner join new_rows as n on n.id = o.id
            cross join lateral (values (o.organization_id), (n.organization_id)) as u (organization_id)
            where (o.member_id, o.completed_at is null) is distinct from (n.member_id, n.completed_at is null)
        );
    end if;
    perform training.mark_stale(null, changed);
    return null;
end
$$;
