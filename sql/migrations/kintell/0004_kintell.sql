-- Domain 3: historical session import from CSV. Tables of the domain, and the account of each import.

comment on schema kintell is
'Domain 3: historical sessions imported from CSV, with their events.';

create table kintell.users (
    id uuid primary key default gen_random_uuid(),
    email text not null,
    name text not null,
    role text not null
);
comment on table kintell.users is
'The people that sessions name, by e-mail address.';
create unique index users_lower_email_key on kintell.users (lower(email));

-- The account of one import. Counters and position move only in the transaction that writes the rows they count.
create table kintell.backfill_jobs (
    id uuid primary key default gen_random_uuid(),
    status text not null default 'pending'
    check (status in ('pending', 'running', 'completed', 'failed', 'paused', 'cancelled', 'rolled_back')),

    -- The file, as it was when it was registered.
    file_name text not null,
    file_url text not null,
    file_size bigint not null check (file_size >= 0),
    file_sha256 text not null check (file_sha256 ~ '^[0-9a-f]{64}$'),
    file_stamp text not null,
    columns text[] not null,
    -- What the file was recognized as, or said to be. All but plain UTF-8 is read from a plain copy.
    delimiter text not null default ',' check (char_length(delimiter) = 1),
    recognized text not null default '',
    sheet text not null default '',
    encoding text not null default '',
    mapping jsonb not null default '{}',
    on_duplicate text not null default 'skip' check (on_duplicate in ('skip', 'update', 'error')),

    -- The account.
    total_rows bigint not null check (total_rows >= 0),
    processed_rows bigint not null default 0,
    inserted_rows bigint not null default 0 check (inserted_rows >= 0),
    updated_rows bigint not null default 0 check (updated_rows >= 0),
    skipped_rows bigint not null default 0 check (skipped_rows >= 0),
    failed_rows bigint not null default 0 check (failed_rows >= 0),
    missing_users bigint not null default 0 check (missing_users >= 0),

    -- The checkpoint: rows up to this one are committed, and the next one starts at this byte.
    last_processed_row bigint not null default 0,
    checkpoint_offset bigint not null,

    -- The claim. A worker may write only while the attempt is its own.
    attempt integer not null default 0,
    activity text check (activity in ('import', 'replay', 'rollback')),
    heartbeat_at timestamptz,
    run_id text,

    error_message text,
    error_file text,
    created_at timestamptz not null default clock_timestamp(),
    started_at timestamptz,
    completed_at timestamptz,

    -- The undoing.
    rollback_started_at timestamptz,
    rolled_back_at timestamptz,
    removed_rows bigint not null default 0,
    restored_rows bigint not null default 0,
    kept_rows bigint not null default 0,

    constraint accounting check (processed_rows = inserted_rows + updated_rows + skipped_rows + failed_rows),
    constraint position_is_what_was_processed check (last_processed_row = processed_rows),
    constraint processed_at_most_all check (processed_rows <= total_rows),
    constraint completed_means_all check (status <> 'completed' or processed_rows = total_rows),
    constraint completed_has_its_time check (status <> 'completed' or completed_at is not null),
    constraint running_is_claimed check (status <> 'running' or activity is not null),
    -- Of a plain copy: it may lie past the size of the file as it was given.
    constraint checkpoint_not_before_file check (checkpoint_offset >= 0)
);
comment on table kintell.backfill_jobs is
'One row an import: the file, the account, the checkpoint, the claim, the undoing.';
-- One unfinished job a content, or sheet of it: starting a file twice continues it.
create unique index backfill_jobs_open_content_key on kintell.backfill_jobs (file_sha256, sheet)
where status in ('pending', 'running', 'paused');
create index backfill_jobs_content_idx on kintell.backfill_jobs (file_sha256);
create index backfill_jobs_created_at_idx on kintell.backfill_jobs (created_at);
create index backfill_jobs_held_idx on kintell.backfill_jobs (heartbeat_at) where activity is not null;

-- What people said that headers stand for, by the set of their names.
create table kintell.header_mappings (
    headers_sha256 bytea primary key,
    headers text[] not null,
    mapping jsonb not null check (jsonb_typeof(mapping) = 'object'),
    mapped_by text not null default session_user,
    mapped_at timestamptz not null default clock_timestamp()
);
comment on table kintell.header_mappings is
'Which column each header of a file stands for, as a person said; used again for files with the same set of headers.';

create function kintell.check_job_status() returns trigger
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
begin
    if (old.status, new.status) in (
        ('pending', 'running'), ('pending', 'cancelled'), ('pending', 'failed'),
        ('running', 'completed'), ('running', 'failed'), ('running', 'paused'), ('running', 'cancelled'),
        ('paused', 'running'), ('paused', 'cancelled'), ('paused', 'rolled_back'),
        ('failed', 'running'), ('failed', 'cancelled'), ('failed', 'rolled_back'),
        ('completed', 'rolled_back'), ('cancelled', 'rolled_back')
    ) then
        return new;
    end if;
    raise exception 'import job % is % and cannot become %', old.id, old.status, new.status
        using errcode = 'check_violation';
end
$$;
create trigger check_job_status before update of status on kintell.backfill_jobs
for each row when (old.status is distinct from new.status) execute function kintell.check_job_status();

create table kintell.kintell_sessions (
    id uuid primary key default gen_random_uuid(),
    -- Compared byte by byte: many times faster than by the rules of a language, and an import can tell from the first
    -- and the last id of a batch that none of them is there.
    external_session_id text collate "C" not null unique check (octet_length(external_session_id) between 1 and 1000),
    session_type text not null check (session_type in ('language', 'mentorship')),
    participant_id uuid not null references kintell.users,
    volunteer_id uuid not null references kintell.users,
    scheduled_at timestamptz not null,
    completed_at timestamptz,
    duration_minutes integer not null check (duration_minutes > 0),
    rating smallint check (rating between 1 and 5),
    feedback_text text,
    language_level text check (language_level in ('A1', 'A2', 'B1', 'B2', 'C1', 'C2')),
    backfill_job_id uuid,  -- of kintell.backfill_jobs: looked up once a statement
    created_at timestamptz not null default now(),
    updated_at timestamptz not null default now()
);
comment on table kintell.kintell_sessions is
'Sessions, one row each, from applications and from imports.';
comment on column kintell.kintell_sessions.external_session_id is
'The session''s id in the file: a session is imported once.';
comment on column kintell.kintell_sessions.session_type is 'language or mentorship.';
comment on column kintell.kintell_sessions.participant_id is 'Who took part, found by e-mail address.';
comment on column kintell.kintell_sessions.volunteer_id is 'Who volunteered, found by e-mail address.';
comment on column kintell.kintell_sessions.scheduled_at is 'When it began.';
comment on column kintell.kintell_sessions.completed_at is 'When it ended; null while it has not.';
comment on column kintell.kintell_sessions.duration_minutes is 'As the file or the application says.';
comment on column kintell.kintell_sessions.rating is '1 to 5; null without one.';
comment on column kintell.kintell_sessions.language_level is 'A1 to C2; null without one.';
comment on column kintell.kintell_sessions.backfill_job_id is
'The import that wrote it last; null for the application''s own.';
create index kintell_sessions_participant_id_idx on kintell.kintell_sessions (participant_id);
create index kintell_sessions_volunteer_id_idx on kintell.kintell_sessions (volunteer_id);
-- Hardly two sessions begin at the same moment: looking for equal ones each time a page is full is in vain.
create index kintell_sessions_scheduled_at_idx on kintell.kintell_sessions (scheduled_at)
with (deduplicate_items = off);
-- A job's rows lie together: a summary of each stretch of the table finds them as fast, and costs next to nothing to
-- keep.
create index kintell_sessions_backfill_job_id_idx on kintell.kintell_sessions
using brin (backfill_job_id uuid_minmax_multi_ops) with (autosummarize = on);

-- In which of a file's columns a session differs from what an import would make of it. Optional columns count where the
-- file has them. What an update rewrites goes by it, and what a dry run counts.
create function kintell.changed_columns(
    there kintell.kintell_sessions,
    session_type text,
    participant_id uuid,
    volunteer_id uuid,
    scheduled_at timestamptz,
    duration_minutes integer,
    rating smallint,
    feedback_text text,
    language_level text,
    columns text[]
) returns text[]
language sql immutable
return array_remove(array[
    case when (there).session_type <> session_type then 'session_type' end,
    case when (there).participant_id <> participant_id then 'participant_email' end,
    case when (there).volunteer_id <> volunteer_id then 'volunteer_email' end,
    case
        when (there).scheduled_at <> scheduled_at then 'date'
        when (there).completed_at is distinct from scheduled_at then 'completed_at'
    end,
    case when (there).duration_minutes <> duration_minutes then 'duration_min' end,
    case when 'rating' = any(columns) and (there).rating is distinct from rating then 'rating' end,
    case
        when 'feedback_text' = any(columns) and (there).feedback_text is distinct from feedback_text
            then 'feedback_text'
    end,
    case
        when 'language_level' = any(columns) and (there).language_level is distinct from language_level
            then 'language_level'
    end
], null);
comment on function kintell.changed_columns is
'The columns of a file in which a session differs from what an import would make of it.';

-- Whoever edits a session is seen to have done so, which is what a rollback goes by. A statement that sets
-- updated_at itself (the rollback, giving a session its old version back) is taken at its word.
create function kintell.touch_session() returns trigger
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
begin
    if new.updated_at is not distinct from old.updated_at then
        new.updated_at := clock_timestamp();
    end if;
    return new;
end
$$;
create trigger touch_session before update on kintell.kintell_sessions
for each row execute function kintell.touch_session();

-- A day's summary goes stale with any change to its sessions, whoever makes it. Its key is the date in ISO's form,
-- whatever the session that wrote it is set to; a day's text is made once, and not for each of its sessions.
create function kintell.mark_summary_days() returns trigger
language plpgsql security definer
set datestyle = 'ISO, MDY'
set search_path = pg_catalog, pg_temp
set row_security = off
as $$
begin
    if tg_op <> 'INSERT' then
        perform backfill.mark_stale('kintell/daily_session_summary', array(
            select day::text from (select distinct (scheduled_at at time zone 'UTC')::date as day from old_rows) as d
        ));
    end if;
    if tg_op <> 'DELETE' then
        perform backfill.mark_stale('kintell/daily_session_summary', array(
            select day::text from (select distinct (scheduled_at at time zone 'UTC')::date as day from new_rows) as d
        ));
    end if;
    return null;
end
$$;
select backfill.add_triggers('kintell.kintell_sessions', 'kintell.mark_summary_days', '{insert, update, delete}');

create table kintell.backfill_job_batches (
    job_id uuid not null references kintell.backfill_jobs on delete cascade,
    batch_no bigint generated always as identity,
    activity text not null check (activity in ('import', 'replay')),
    attempt integer not null,
    first_row bigint not null,
    last_row bigint not null,
    byte_from bigint,
    byte_to bigint,
    inserted_rows integer not null,
    updated_rows integer not null,
    skipped_rows integer not null,
    failed_rows integer not null,
    seconds double precision not null,
    committed_at timestamptz not null default clock_timestamp(),
    primary key (job_id, batch_no)
);
comment on table kintell.backfill_job_batches is
'One row a committed batch of an import: which rows and bytes of the file, and what became of them.';

create table kintell.backfill_row_errors (
    job_id uuid not null references kintell.backfill_jobs on delete cascade,
    row_number bigint not null,
    error_message text not null,
    row_values text[] not null,
    replayable boolean not null,
    created_at timestamptz not null default now(),
    resolved_at timestamptz,
    primary key (job_id, row_number)
);
comment on table kintell.backfill_row_errors is
'Rejected rows as they stood in the file. Open until a replay imports them.';
comment on column kintell.backfill_row_errors.row_values is
'The fields as they stood in the file; of a row that is not replayable, its whole text as the only one.';

create table kintell.backfill_job_updates (
    job_id uuid not null references kintell.backfill_jobs on delete cascade,
    session_id uuid not null,
    previous jsonb not null,
    updated_at timestamptz not null,
    primary key (job_id, session_id)
);
comment on table kintell.backfill_job_updates is
'What a session was before an import rewrote it, for the rollback.';

create view kintell.sessions_of_jobs as
select backfill_job_id as job_id, id, external_session_id, 'inserted' as was, updated_at <> created_at as edited
from kintell.kintell_sessions
where backfill_job_id is not null
union all
select u.job_id, s.id, s.external_session_id, 'rewritten' as was, u.updated_at <> s.updated_at as edited
from kintell.backfill_job_updates as u
inner join kintell.kintell_sessions as s on u.session_id = s.id;
comment on view kintell.sessions_of_jobs is
'What each import inserted and rewrote, and whether it was edited since: a rollback keeps that.';

-- Events wait here in the order of `position` until they are stored in JetStream. Each batch takes one value
-- of the sequence, which is a room for 100,000 events.
create sequence kintell.event_position as bigint increment by 100000;
-- An event holds what it will say in columns of its own, as the session was when it came about; the view below puts
-- that into the form in which it is sent.
create table kintell.event_outbox (
    session_id uuid not null,
    event_type text not null check (event_type in ('kintell.session.completed', 'kintell.session.rolled_back')),
    position bigint not null,
    id uuid not null,
    job_id uuid not null,
    external_session_id text not null,
    session_type text,
    participant_id uuid,
    volunteer_id uuid,
    scheduled_at timestamptz,
    completed_at timestamptz,
    duration_minutes integer,
    language_level text,
    created_at timestamptz not null default now(),
    published_at timestamptz,
    primary key (session_id, event_type)
);
comment on table kintell.event_outbox is
'Events in their order, until they are stored in JetStream.';
create index event_outbox_waiting_idx on kintell.event_outbox (position) where published_at is null;

create view kintell.event_payloads as
select
    position,
    id,
    event_type,
    job_id,
    session_id,
    created_at,
    published_at,
    case event_type
        when 'kintell.session.completed' then json_build_object(
            'id', id,
            'time', created_at,
            'sessionId', session_id,
            'externalSessionId', external_session_id,
            'sessionType', session_type,
            'participantId', participant_id,
            'volunteerId', volunteer_id,
            'scheduledAt', scheduled_at,
            'completedAt', completed_at,
            'durationMinutes', duration_minutes,
            'languageLevel', language_level
        )
        else json_build_object(
            'id', id,
            'time', created_at,
            'sessionId', session_id,
            'externalSessionId', external_session_id,
            'jobId', job_id
        )
    end as payload
from kintell.event_outbox;
comment on view kintell.event_payloads is
'Events in the form in which they are sent.';

-- The publisher's own mark: events up to this position may have left, although nobody noted it yet.
create table kintell.event_publisher (
    only_one boolean primary key default true check (only_one),
    sending_upto bigint not null default 0,
    last_error text,
    last_error_at timestamptz,
    last_published_at timestamptz
);
comment on table kintell.event_publisher is
'The publisher''s own mark: how far events may have left, and its last error. One row.';
insert into kintell.event_publisher default values;

-- Asset kintell/daily_session_summary.
create table kintell.daily_session_summary (
    day date primary key,
    sessions bigint not null check (sessions > 0),
    language_sessions bigint not null,
    mentorship_sessions bigint not null,
    participants bigint not null,
    volunteers bigint not null,
    total_minutes bigint not null,
    average_duration_minutes numeric(10, 2) not null,
    rated_sessions bigint not null,
    average_rating numeric(3, 2),
    updated_at timestamptz not null default now()
);
comment on table kintell.daily_session_summary is
'One row a day (UTC) that has sessions. The asset of the same name.';
comment on column kintell.daily_session_summary.day is 'The UTC day, which is the partition.';
comment on column kintell.daily_session_summary.sessions is 'Sessions that began on the day.';
comment on column kintell.daily_session_summary.participants is 'Different people who took part.';
comment on column kintell.daily_session_summary.volunteers is 'Different volunteers.';
comment on column kintell.daily_session_summary.total_minutes is 'Of all sessions together.';
comment on column kintell.daily_session_summary.rated_sessions is 'Sessions with a rating.';
comment on column kintell.daily_session_summary.average_rating is 'Of those; null without any.';
comment on column kintell.daily_session_summary.updated_at is 'When the row last changed.';

create view kintell.backfill_job_history as
select
    j.id,
    j.file_name,
    j.status,
    j.activity,
    j.total_rows,
    j.processed_rows,
    j.inserted_rows,
    j.updated_rows,
    j.skipped_rows,
    j.failed_rows,
    round(100.0 * j.processed_rows / nullif(j.total_rows, 0), 1) as percent,
    round(100.0 * j.failed_rows / nullif(j.processed_rows, 0), 2) as error_percent,
    j.attempt,
    j.created_at,
    j.started_at,
    j.completed_at,
    coalesce(j.completed_at, b.last_at) - j.started_at as duration,
    round((j.processed_rows / nullif(b.seconds, 0))::numeric) as rows_per_second,
    clock_timestamp() - j.heartbeat_at as heartbeat_age,
    j.run_id,
    j.error_message,
    j.error_file
from kintell.backfill_jobs as j
left join lateral (
    select
        max(bb.committed_at) as last_at,
        extract(epoch from max(bb.committed_at) - min(bb.committed_at - make_interval(secs => bb.seconds))) as seconds
    from kintell.backfill_job_batches as bb
    where bb.job_id = j.id and bb.activity = 'import'
) as b on true;
comment on view kintell.backfill_job_history is
'Every import: how far, how fast, how many rows rejected, how long.';

create view kintell.unaccounted_jobs as
select j.id, j.status, j.failed_rows, e.open_errors, j.inserted_rows, b.inserted_in_batches, j.created_at
from kintell.backfill_jobs as j
cross join lateral (
    select count(*) as open_errors from kintell.backfill_row_errors as r where r.job_id = j.id and r.resolved_at is null
) as e
cross join lateral (
    select coalesce(sum(bb.inserted_rows), 0) as inserted_in_batches
    from kintell.backfill_job_batches as bb
    where bb.job_id = j.id
) as b
where j.activity is null and (j.failed_rows <> e.open_errors or j.inserted_rows <> b.inserted_in_batches);
comment on view kintell.unaccounted_jobs is
'Jobs at rest whose counters differ from the rows that are there. None is good.';

create view kintell.backfill_daily_summary as
select
    (created_at at time zone 'UTC')::date as day,
    count(*) as jobs,
    count(*) filter (where status = 'completed') as completed,
    count(*) filter (where status = 'failed') as failed,
    count(*) filter (where status = 'rolled_back') as rolled_back,
    sum(processed_rows) as processed_rows,
    sum(inserted_rows) as inserted_rows,
    sum(updated_rows) as updated_rows,
    sum(skipped_rows) as skipped_rows,
    sum(failed_rows) as failed_rows,
    round(100.0 * sum(failed_rows) / nullif(sum(processed_rows), 0), 2) as error_percent
from kintell.backfill_jobs
group by 1;
comment on view kintell.backfill_daily_summary is
'Imports by the UTC day of their registration.';

create view kintell.sessions_per_date as
select
    (scheduled_at at time zone 'UTC')::date as day,
    count(*) as sessions,
    count(*) filter (where session_type = 'language') as language_sessions,
    count(*) filter (where session_type = 'mentorship') as mentorship_sessions,
    count(*) filter (where backfill_job_id is not null) as imported_sessions,
    round(avg(duration_minutes), 2) as average_duration_minutes,
    round(avg(rating), 2) as average_rating
from kintell.kintell_sessions
group by 1;
comment on view kintell.sessions_per_date is
'Sessions by UTC day, counted at the moment of asking.';

-- The domain in one row, in the columns that every domain's overview has.
create view kintell.overview as
select
    'imports' as of_what,
    count(*) as units,
    count(*) filter (where j.status in ('completed', 'cancelled', 'rolled_back')) as up_to_date,
    count(*) filter (where j.status in ('pending', 'running', 'paused')) as missing,
    0::bigint as stale,
    count(*) filter (where j.status = 'failed') as failed,
    null::timestamptz as oldest_stale
from kintell.backfill_jobs as j;
comment on view kintell.overview is
'The domain in one row, for backfills status.';

-- Ids of a job's file that were in the database before it: skipped, updated or refused. Those that it inserted need no
-- line here, as they are its sessions.
create table kintell.backfill_job_claims (
    job_id uuid not null references kintell.backfill_jobs on delete cascade,
    external_session_id text not null,
    primary key (job_id, external_session_id)
);
comment on table kintell.backfill_job_claims is
'Ids of an import''s file that were in the database before it: skipped, updated or refused.';

-- All rows of an import have one job, which is looked up once a statement, not once a row.
create function kintell.check_session_jobs() returns trigger
language plpgsql set search_path = pg_catalog, pg_temp as $$
declare
    job uuid;
begin
    for job in
        select distinct n.backfill_job_id from new_rows as n where n.backfill_job_id is not null
    loop
        perform from kintell.backfill_jobs as j where j.id = job for key share;
        if not found then
            raise exception 'there is no import job %', job using errcode = 'foreign_key_violation';
        end if;
    end loop;
    return null;
end
$$;
select backfill.add_triggers('kintell.kintell_sessions', 'kintell.check_session_jobs', '{insert, update}');

-- Who removes a job has its row locked by now, and so sees the sessions of whoever held it.
create function kintell.keep_job_of_sessions() returns trigger
language plpgsql set search_path = pg_catalog, pg_temp as $$
begin
    if exists (select from kintell.kintell_sessions as s where s.backfill_job_id = old.id) then
        raise exception 'import job % has sessions', old.id
            using errcode = 'foreign_key_violation', hint = 'Roll it back first.';
    end if;
    return case tg_op when 'DELETE' then old else new end;
end
$$;
create trigger keep_job_of_sessions_delete before delete on kintell.backfill_jobs
for each row execute function kintell.keep_job_of_sessions();
create trigger keep_job_of_sessions_update before update of id on kintell.backfill_jobs
for each row when (old.id is distinct from new.id) execute function kintell.keep_job_of_sessions();
