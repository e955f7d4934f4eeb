comment on schema training is
'Completion records, one per member and training video, and the progress derived from them.';

-- Source tables.
create table training.organizations (
    id text primary key,
    name text not null,
    created_at timestamptz not null default now()
);
comment on table training.organizations is
'Source: organizations. Each is a partition.';
create index organizations_created_at_idx on training.organizations (created_at, id);

create table training.members (
    id text primary key,
    organization_id text not null references training.organizations on delete cascade,
    user_email text not null,
    role text not null default 'member',
    deactivated boolean not null default false,
    created_at timestamptz not null default now(),
    -- Referenced by completion records, so that they follow their member into another organization.
    unique (id, organization_id)
);
comment on table training.members is
'Source: members of organizations.';
comment on column training.members.deactivated is
'Deactivated members need no completion records and do not count toward progress.';
create index members_organization_id_idx on training.members (organization_id, id) include (deactivated);

create table training.training_videos (
    id text primary key,
    title text not null,
    position integer not null
);
comment on table training.training_videos is
'Source: training videos.';

-- Targets.
create table training.employee_training_video_completions (
    id bigint generated always as identity primary key,
    organization_id text not null,
    member_id text not null,
    video_id text not null references training.training_videos on update cascade on delete cascade,
    completed_at timestamptz,
    created_at timestamptz not null default now(),
    backfill_id text,
    unique (member_id, video_id),
    foreign key (member_id, organization_id) references training.members (id, organization_id)
    on update cascade on delete cascade
) with (fillfactor = 90);
comment on table training.employee_training_video_completions is
'Completion records, one row per member and training video.';
comment on column training.employee_training_video_completions.member_id is 'The member.';
comment on column training.employee_training_video_completions.video_id is 'The training video.';
comment on column training.employee_training_video_completions.created_at is
'When the record was created, not when the video was watched.';
comment on column training.employee_training_video_completions.organization_id is
'The member''s organization, which is the partition. Filled by a trigger if omitted; updated by the foreign key.';
comment on column training.employee_training_video_completions.completed_at is 'Null until the member has finished.';
comment on column training.employee_training_video_completions.backfill_id is
'The Dagster backfill, or else the run, that created the record. Null for records that the application created.';
-- To count an organization's records, which are stored next to each other.
create index employee_training_video_completions_organization_id_idx
on training.employee_training_video_completions (organization_id);
-- To find a backfill's records for its rollback. They are stored next to each other, so a BRIN index is enough and is
-- cheap to maintain.
create index employee_training_video_completions_backfill_id_idx on training.employee_training_video_completions
using brin (backfill_id text_bloom_ops (n_distinct_per_range = 500)) with (pages_per_range = 64, autosummarize = on);

create table training.organization_training_progress (
    organization_id text primary key references training.organizations on delete cascade,
    members integer not null check (members >= 0),
    records integer not null check (records >= 0),
    completed integer not null check (completed between 0 and records),
    percent integer not null check (percent between 0 and 100),
    updated_at timestamptz not null default now()
) with (fillfactor = 70);
comment on table training.organization_training_progress is
'Progress by organization, for charts. Counts members who are not deactivated, and their records.';
comment on column training.organization_training_progress.members is 'Members who are not deactivated.';
comment on column training.organization_training_progress.records is 'Records of these members, completed or not.';
comment on column training.organization_training_progress.completed is 'Records with a `completed_at`.';
comment on column training.organization_training_progress.updated_at is 'When the row last changed.';
comment on column training.organization_training_progress.percent is
'100 × completed / records, rounded half up to a whole percent; 0 without records.';

-- Applications may insert records without the organization.
create function training.fill_in_organization() returns trigger
language plpgsql
security definer
set search_path = pg_catalog, pg_temp
set row_security = off
as $$
begin
    select m.organization_id into new.organization_id from training.members as m where m.id = new.member_id;
    if new.organization_id is null then
        raise foreign_key_violation using
            message = format('there is no member %L', new.member_id),
            table = tg_table_name, schema = tg_table_schema;
    end if;
    return new;
end
$$;

create trigger fill_in_organization before insert on training.employee_training_video_completions
for each row when (new.organization_id is null) execute function training.fill_in_organization();

-- Marks the organizations whose records or progress a change made stale. Runs with its owner's privileges, so that
-- application roles need none on the schema `backfill`.
create function training.sources_changed() returns trigger
language plpgsql
security definer
set search_path = pg_catalog, pg_temp
set row_security = off
as $$
declare
    lacking text[];  -- organizations that may lack records
    counted text[];  -- organizations of which only the counts have changed
begin
    case tg_table_name || ' ' || tg_op
    -- A new organization needs a row in the progress table even if it has no members.
    when 'organizations INSERT' then
        lacking := array(select n.id from new_rows as n);

    -- A member who joins, is reactivated or moves needs records in the new organization. A member who joins, is
    -- reactivated, leaves or moves changes the counts. Other columns don't matter.
    when 'members INSERT' then
        lacking := array(select distinct n.organization_id from new_rows as n where not n.deactivated);
    when 'members DELETE' then
        counted := array(select distinct o.organization_id from old_rows as o where not o.deactivated);
    when 'members UPDATE' then
        select
            array_agg(distinct n.organization_id) filter (where not n.deactivated),
            array_agg(distinct o.organization_id) filter (where not o.deactivated)
        into lacking, counted
        from old_rows as o
        full join new_rows as n on n.id = o.id
        where
            case when not o.deactivated then o.organization_id end
            is distinct from case when not n.deactivated then n.organization_id end;

    -- A new video is due for everybody. A deleted video has deleted its records (cascade).
    when 'training_videos INSERT' then
        lacking := array(select o.id from training.organizations as o where exists (select from new_rows));
    when 'training_videos DELETE' then
        counted := array(select o.id from training.organizations as o where exists (select from old_rows));

    -- Any change of records changes the counts. A backfill that updates the counts in the same transaction clears the
    -- mark. A deleted record does not count as lacking, because a rollback deletes records intentionally.
    when 'employee_training_video_completions INSERT' then
        counted := array(select distinct n.organization_id from new_rows as n);
    when 'employee_training_video_completions DELETE' then
        counted := array(select distinct o.organization_id from old_rows as o);
    when 'employee_training_video_completions UPDATE' then
        counted := array(
            select distinct u.organization_id
            from old_rows as o
            inner join new_rows as n on n.id = o.id
            cross join lateral (values (o.organization_id), (n.organization_id)) as u (organization_id)
            where (o.member_id, o.completed_at is null) is distinct from (n.member_id, n.completed_at is null)
        );

    -- TRUNCATE has no transition tables and cascades to all dependent tables.
    else
        counted := array(select o.id from training.organizations as o);
    end case;

    perform backfill.mark_stale('training/employee_training_video_completions', lacking);
    perform backfill.mark_stale('training/organization_training_progress', lacking || counted);
    return null;
end
$$;

select backfill.add_triggers('training.organizations', 'training.sources_changed', '{insert, truncate}');
select backfill.add_triggers('training.members', 'training.sources_changed', '{insert, update, delete, truncate}');
select backfill.add_triggers('training.training_videos', 'training.sources_changed', '{insert, delete, truncate}');
select backfill.add_triggers(
    'training.employee_training_video_completions', 'training.sources_changed', '{insert, update, delete, truncate}'
);

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
comment on view training.organization_status is
'Status of every organization, computed from its records: members, records, missing records, failures, staleness.';

-- To count completed records. A backfill creates incomplete ones, so it does not have to maintain this index.
create index employee_training_video_completions_completed_idx
on training.employee_training_video_completions (organization_id)
where completed_at is not null;
