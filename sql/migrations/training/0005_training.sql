-- Domain 1: completion records of training videos, one for each member and video, and what is derived from them.

-- Source tables.
create table training.organizations (
    id text primary key,
    name text not null,
    created_at timestamptz not null default now()
);
create index organizations_created_at_idx on training.organizations (created_at, id);

create table training.members (
    id text primary key,
    organization_id text not null references training.organizations on delete cascade,
    user_email text not null,
    role text not null default 'member',
    deactivated boolean not null default false,
    created_at timestamptz not null default now(),
    -- What a completion record refers to, so that it follows its member into another organization.
    unique (id, organization_id)
);
create index members_organization_id_idx on training.members (organization_id, id) include (deactivated);

create table training.training_videos (
    id text primary key,
    title text not null,
    position integer not null
);

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
comment on column training.employee_training_video_completions.organization_id is
'The member''s organization, which is the partition. Kept right by the foreign key; filled in where left out.';
comment on column training.employee_training_video_completions.completed_at is 'Null until the member has finished.';
comment on column training.employee_training_video_completions.backfill_id is
'The backfill that created the record: Dagster''s backfill, else the run. Null for the application''s own.';
-- An organization's records, which lie together: its count is one short scan.
create index employee_training_video_completions_organization_id_idx
on training.employee_training_video_completions (organization_id);
-- Finds a backfill's records, for its rollback. They lie together too, so that a summary of each stretch of pages is
-- enough, and it costs next to nothing to keep.
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
'What a progress chart reads. Counts members who are not deactivated, and their records.';
comment on column training.organization_training_progress.percent is
'100 × completed / records, rounded half up to a whole percent; 0 without records.';

-- A record of the application's own need not say the organization.
create function training.fill_in_organization() returns trigger
language plpgsql
security definer
set search_path = pg_catalog, pg_temp
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
