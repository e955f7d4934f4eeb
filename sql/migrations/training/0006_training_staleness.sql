-- Domain 1, staleness: statement-level triggers that mark the organizations whose records or progress a change made
-- stale. They run with their owner's rights, so that an application role needs no right on the schema `backfill`.

-- `records`: these organizations may lack records. `progress`: the counts of these have changed. An organization
-- that is being deleted, as its rows cascade, is left alone.
create function training.mark_stale(records text[], progress text[]) returns void
language plpgsql
as $$
declare
    present text[];
begin
    present := array(select o.id from training.organizations as o where o.id = any(mark_stale.records));
    if cardinality(present) > 0 then
        perform backfill.mark_stale('training/employee_training_video_completions', present);
    end if;
    present := array(
        select o.id from training.organizations as o
        where o.id = any(mark_stale.records) or o.id = any(mark_stale.progress)
    );
    if cardinality(present) > 0 then
        perform backfill.mark_stale('training/organization_training_progress', present);
    end if;
end
$$;

-- A new organization is worked even when it has no members: it has its row in the progress table.
create function training.organizations_inserted() returns trigger
language plpgsql
security definer
set search_path = pg_catalog, pg_temp
as $$
begin
    perform training.mark_stale(array(select n.id from new_rows as n), null);
    return null;
end
$$;

create trigger organizations_inserted after insert on training.organizations
referencing new table as new_rows
for each statement execute function training.organizations_inserted();

-- A deleted organization takes its marks and its open failures along: at commit, when the marks of everyone who was
-- still changing something below it can be seen.
create function training.organization_deleted() returns trigger
language plpgsql
security definer
set search_path = pg_catalog, pg_temp
as $$
begin
    if exists (select from training.organizations as o where o.id = old.id) then
        return null;
    end if;
    delete from backfill.stale_marks
    where asset in ('training/employee_training_video_completions', 'training/organization_training_progress')
        and partition = old.id;
    update backfill.failures set resolved_at = clock_timestamp()
    where asset in ('training/employee_training_video_completions', 'training/organization_training_progress')
        and partition = old.id
        and resolved_at is null;
    return null;
end
$$;

create constraint trigger organization_deleted after delete on training.organizations
deferrable initially deferred
for each row execute function training.organization_deleted();

-- Members. One who joins, comes back or moves needs records in the organization that has it now; one who joins,
-- comes, goes or moves changes the counts. A changed name, role or address changes nothing.
create function training.members_changed() returns trigger
language plpgsql
security definer
set search_path = pg_catalog, pg_temp
as $$
declare
    arrived text[];
    departed text[];
begin
    if tg_op = 'INSERT' then
        arrived := array(select distinct n.organization_id from new_rows as n where not n.deactivated);
    elsif tg_op = 'DELETE' then
        departed := array(select distinct o.organization_id from old_rows as o where not o.deactivated);
    else
        select
            array_agg(distinct n.organization_id) filter (where not n.deactivated),
            array_agg(distinct o.organization_id) filter (where not o.deactivated)
        into arrived, departed
        from old_rows as o
        full join new_rows as n on n.id = o.id
        where
            case when not o.deactivated then o.organization_id end
            is distinct from case when not n.deactivated then n.organization_id end;
    end if;
    perform training.mark_stale(arrived, departed);
    return null;
end
$$;

create trigger members_inserted after insert on training.members
referencing new table as new_rows
for each statement execute function training.members_changed();
create trigger members_updated after update on training.members
referencing old table as old_rows new table as new_rows
for each statement execute function training.members_changed();
create trigger members_deleted after delete on training.members
referencing old table as old_rows
for each statement execute function training.members_changed();

-- Videos: a new one is due for everybody, and one that is gone has taken its records along.
create function training.videos_changed() returns trigger
language plpgsql
security definer
set search_path = pg_catalog, pg_temp
as $$
begin
    if tg_op = 'INSERT' then
        if exists (select from new_rows) then
            perform training.mark_stale(array(select o.id from training.organizations as o), null);
        end if;
    elsif exists (select from old_rows) then
        perform training.mark_stale(null, array(select o.id from training.organizations as o));
    end if;
    return null;
end
$$;

create trigger training_videos_inserted after insert on training.training_videos
referencing new table as new_rows
for each statement execute function training.videos_changed();
create trigger training_videos_deleted after delete on training.training_videos
referencing old table as old_rows
for each statement execute function training.videos_changed();

-- Records. What a backfill creates, it counts itself in the same transaction; the rest is the application's. A record
-- that is deleted is not asked back here: a rollback that removes it means it.
create function training.completions_changed() returns trigger
language plpgsql
security definer
set search_path = pg_catalog, pg_temp
as $$
declare
    changed text[];
begin
    if tg_op = 'INSERT' then
        changed := array(select distinct n.organization_id from new_rows as n where n.backfill_id is null);
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

create trigger completions_inserted after insert on training.employee_training_video_completions
referencing new table as new_rows
for each statement execute function training.completions_changed();
create trigger completions_updated after update on training.employee_training_video_completions
referencing old table as old_rows new table as new_rows
for each statement execute function training.completions_changed();
create trigger completions_deleted after delete on training.employee_training_video_completions
referencing old table as old_rows
for each statement execute function training.completions_changed();

-- `truncate` fires no row triggers and cascades to every table below.
create function training.truncated() returns trigger
language plpgsql
security definer
set search_path = pg_catalog, pg_temp
as $$
begin
    delete from backfill.stale_marks as m
    where m.asset in ('training/employee_training_video_completions', 'training/organization_training_progress')
        and not exists (select from training.organizations as o where o.id = m.partition);
    perform training.mark_stale(null, array(select o.id from training.organizations as o));
    return null;
end
$$;

create trigger organizations_truncated after truncate on training.organizations
for each statement execute function training.truncated();
create trigger members_truncated after truncate on training.members
for each statement execute function training.truncated();
create trigger training_videos_truncated after truncate on training.training_videos
for each statement execute function training.truncated();
create trigger completions_truncated after truncate on training.employee_training_video_completions
for each statement execute function training.truncated();

-- The state of every organization, from the records themselves.
create view training.organization_status as
select
    o.id as organization_id,
    o.name as organization_name,
    o.created_at,
    coalesce(m.members, 0) as members,
    coalesce(m.members, 0) * v.videos as expected,
    coalesce(m.records, 0) as records,
    coalesce(m.completed, 0) as completed,
    coalesce(m.members, 0) * v.videos - coalesce(m.records, 0) as missing,
    coalesce(f.failed_members, 0) as failed_members,
    s.since as stale_since,
    p.organization_id is not null as has_progress,
    p.percent,
    p.updated_at as progress_updated_at
from training.organizations as o
cross join (select count(*) as videos from training.training_videos) as v
left join lateral (
    select
        count(*) as members,
        sum(c.records)::bigint as records,
        sum(c.completed)::bigint as completed
    from training.members as mm
    cross join
        lateral (
            select
                count(*) as records,
                count(cc.completed_at) as completed
            from training.employee_training_video_completions as cc
            where cc.member_id = mm.id
        ) as c
    where mm.organization_id = o.id and not mm.deactivated
) as m on true
left join lateral (
    select count(*) as failed_members
    from backfill.failures as ff
    where
        ff.asset = 'training/employee_training_video_completions'
        and ff.partition = o.id
        and ff.unit is not null
        and ff.resolved_at is null
) as f on true
left join lateral (
    select min(ss.marked_at) as since
    from backfill.stale_marks as ss
    where
        ss.asset in ('training/employee_training_video_completions', 'training/organization_training_progress')
        and ss.partition = o.id
) as s on true
left join training.organization_training_progress as p on p.organization_id = o.id;

-- The domain in one row, in the columns that every domain's overview has.
create view training.overview as
select
    'organizations' as of_what,
    count(*) as units,
    count(*) filter (
        where s.missing = 0 and s.has_progress and s.stale_since is null and f.partition is null
    ) as up_to_date,
    count(*) filter (where s.missing > 0 or not s.has_progress) as missing,
    count(*) filter (where s.stale_since is not null) as stale,
    count(f.partition) as failed,
    min(s.stale_since) as oldest_stale
from training.organization_status as s
left join (
    select distinct ff.partition
    from backfill.failures as ff
    where
        ff.asset in ('training/employee_training_video_completions', 'training/organization_training_progress')
        and ff.resolved_at is null
) as f on f.partition = s.organization_id;
