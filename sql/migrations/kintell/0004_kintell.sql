comment on schema kintell is
'Sessions imported from CSV files and workbooks, and their events.';

create table kintell.users (
    id uuid primary key default gen_random_uuid(),
    email text not null,
    name text not null,
    role text not null
);
comment on table kintell.users is
'Participants and volunteers, identified by email address.';
create unique index users_lower_email_key on kintell.users (lower(email));

-- Counters and position are updated in the transaction that writes the rows they count.
create table kintell.backfill_jobs (
    id uuid primary key default gen_random_uuid(),
    status text not null default 'pending'
    check (status in ('pending', 'running', 'completed', 'failed', 'paused', 'cancelled', 'rolled_back')),

    -- The file when it was registered.
    file_name text not null,
    file_url text not null,
    file_size bigint not null check (file_size >= 0),
    file_sha256 text not null check (file_sha256 ~ '^[0-9a-f]{64}$'),
    file_stamp text not null,
    columns text[] not null,
    -- The file's detected or given format. Files other than plain UTF-8 are read from a converted copy.
    delimiter text not null default ',' check (char_length(delimiter) = 1),
    recognized text not null default '',
    sheet text not null default '',
    encoding text not null default '',
    mapping jsonb not null default '{}',
    on_duplicate text not null default 'skip' check (on_duplicate in ('skip', 'update', 'error')),

    -- Row counts.
    total_rows bigint not null check (total_rows >= 0),
    processed_rows bigint not null default 0,
    inserted_rows bigint not null default 0 check (inserted_rows >= 0),
    updated_rows bigint not null default 0 check (updated_rows >= 0),
    skipped_rows bigint not null default 0 check (skipped_rows >= 0),
    failed_rows bigint not null default 0 check (failed_rows >= 0),
    missing_users bigint not null default 0 check (missing_users >= 0),

    -- The checkpoint: the last committed row, and the byte offset of the next one.
    last_processed_row bigint not null default 0,
    checkpoint_offset bigint not null,

    -- The claim. A worker may write only while this is its attempt.
    attempt integer not null default 0,
    activity text check (activity in ('import', 'replay', 'rollback')),
    heartbeat_at timestamptz,
    run_id text,

    error_message text,
    error_file text,
    created_at timestamptz not null default clock_timestamp(),
    started_at timestamptz,
    completed_at timestamptz,

    -- The rollback.
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
    -- No upper bound: for a converted copy the offset may exceed the original file's size.
    constraint checkpoint_not_before_file check (checkpoint_offset >= 0)
);
comment on table kintell.backfill_jobs is
'Import jobs: file, row counts, checkpoint, claim and rollback of each.';
-- One unfinished job per file content and sheet: starting a file again continues its job.
create unique index backfill_jobs_open_content_key on kintell.backfill_jobs (file_sha256, sheet)
where status in ('pending', 'running', 'paused');
create index backfill_jobs_content_idx on kintell.backfill_jobs (file_sha256);
create index backfill_jobs_created_at_idx on kintell.backfill_jobs (created_at);
create index backfill_jobs_held_idx on kintell.backfill_jobs (heartbeat_at) where activity is not null;

create table kintell.header_mappings (
    headers_sha256 bytea primary key,
    headers text[] not null,
    mapping jsonb not null check (jsonb_typeof(mapping) = 'object'),
    mapped_by text not null default session_user,
    mapped_at timestamptz not null default clock_timestamp()
);
comment on table kintell.header_mappings is
'Column mappings that users have chosen for file headers. Reused for files with the same set of headers.';

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
    -- Collation "C" compares bytes: much faster, and an import can tell from a batch's first and last ID that none of
    -- its IDs exists.
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
    backfill_job_id uuid,  -- references kintell.backfill_jobs; checked by a trigger once per statement
    created_at timestamptz not null default now(),
    updated_at timestamptz not null default now()
);
comment on table kintell.kintell_sessions is
'Sessions from applications and from imports.';
comment on column kintell.kintell_sessions.external_session_id is
'The session''s ID in the file. Unique, so that a session is imported once.';
comment on column kintell.kintell_sessions.session_type is '`language` or `mentorship`.';
comment on column kintell.kintell_sessions.participant_id is 'The participant, matched by email address.';
comment on column kintell.kintell_sessions.volunteer_id is 'The volunteer, matched by email address.';
comment on column kintell.kintell_sessions.scheduled_at is 'Start of the session.';
comment on column kintell.kintell_sessions.completed_at is 'End of the session; null until it has ended.';
comment on column kintell.kintell_sessions.duration_minutes is 'Duration as given by the file or the application.';
comment on column kintell.kintell_sessions.rating is '1 to 5, or null.';
comment on column kintell.kintell_sessions.language_level is 'A1 to C2, or null.';
comment on column kintell.kintell_sessions.backfill_job_id is
'The import that last wrote the session; null if an application created it.';
create index kintell_sessions_participant_id_idx on kintell.kintell_sessions (participant_id);
create index kintell_sessions_volunteer_id_idx on kintell.kintell_sessions (volunteer_id);
-- Start times are nearly unique, so deduplication would only cost time.
create index kintell_sessions_scheduled_at_idx on kintell.kintell_sessions (scheduled_at)
with (deduplicate_items = off);
-- A job's rows are stored next to each other, so a BRIN index is as fast and cheap to maintain.
create index kintell_sessions_backfill_job_id_idx on kintell.kintell_sessions
using brin (backfill_job_id uuid_minmax_multi_ops) with (autosummarize = on);

-- Used by updates and dry runs. Optional columns count only if the file has them.
create function kintell.changed_columns(
    existing kintell.kintell_sessions,
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
    case when (existing).session_type <> session_type then 'session_type' end,
    case when (existing).participant_id <> participant_id then 'participant_email' end,
    case when (existing).volunteer_id <> volunteer_id then 'volunteer_email' end,
    case
        when (existing).scheduled_at <> scheduled_at then 'date'
        when (existing).completed_at is distinct from scheduled_at then 'completed_at'
    end,
    case when (existing).duration_minutes <> duration_minutes then 'duration_min' end,
    case when 'rating' = any(columns) and (existing).rating is distinct from rating then 'rating' end,
    case
        when 'feedback_text' = any(columns) and (existing).feedback_text is distinct from feedback_text
            then 'feedback_text'
    end,
    case
        when 'language_level' = any(columns) and (existing).language_level is distinct from language_level
            then 'language_level'
    end
], null);
comment on function kintell.changed_columns is
'The file columns in which an existing session differs from the imported values.';

-- Sets updated_at on every update, because a rollback detects edits by it. A statement that sets updated_at itself (the
-- rollback, when it restores a previous version) is left alone.
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

-- Any change of sessions makes their days' summaries stale. Partition keys are ISO dates whatever the session's
-- DateStyle is. Each distinct day is converted to text once.
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
'Committed batches of imports, with the rows and bytes of the file and the row counts of each.';

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
'Rejected rows of imports. Open until a replay imports them.';
comment on column kintell.backfill_row_errors.row_values is
'The fields as in the file. For a row that can''t be replayed, a single element with the row''s text.';

create table kintell.backfill_job_updates (
    job_id uuid not null references kintell.backfill_jobs on delete cascade,
    session_id uuid not null,
    previous jsonb not null,
    updated_at timestamptz not null,
    primary key (job_id, session_id)
);
comment on table kintell.backfill_job_updates is
'Sessions before an import updated them, for its rollback.';

create view kintell.sessions_of_jobs as
select backfill_job_id as job_id, id, external_session_id, 'inserted' as was, updated_at <> created_at as edited
from kintell.kintell_sessions
where backfill_job_id is not null
union all
select u.job_id, s.id, s.external_session_id, 'rewritten' as was, u.updated_at <> s.updated_at as edited
from kintell.backfill_job_updates as u
inner join kintell.kintell_sessions as s on u.session_id = s.id;
comment on view kintell.sessions_of_jobs is
'Sessions that each import inserted or updated. A rollback keeps those that were edited since.';

-- Each batch takes one value of the sequence, which reserves positions for 100,000 events.
create sequence kintell.event_position as bigint increment by 100000;
-- Holds the session's values at the time of the event. The view event_payloads builds the messages.
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
'The outbox: events in order of `position`, to be stored in JetStream.';
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
'Events with their message payloads.';

-- sending_upto: events up to this position may have been sent although `published_at` is not set yet.
create table kintell.event_publisher (
    only_one boolean primary key default true check (only_one),
    sending_upto bigint not null default 0,
    last_error text,
    last_error_at timestamptz,
    last_published_at timestamptz
);
comment on table kintell.event_publisher is
'The state of the event publisher: how far events may have been sent, and its last error. A single row.';
insert into kintell.event_publisher default values;

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
'Session statistics, one row per UTC day with sessions.';
comment on column kintell.daily_session_summary.day is 'The UTC day, which is the partition.';
comment on column kintell.daily_session_summary.sessions is 'Sessions that started on the day.';
comment on column kintell.daily_session_summary.participants is 'Number of distinct participants.';
comment on column kintell.daily_session_summary.volunteers is 'Number of distinct volunteers.';
comment on column kintell.daily_session_summary.total_minutes is 'Total duration of the sessions.';
comment on column kintell.daily_session_summary.rated_sessions is 'Sessions with a rating.';
comment on column kintell.daily_session_summary.average_rating is 'Average of the ratings; null if there are none.';
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
'All imports with progress, speed, error rate and duration.';

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
'Inactive jobs whose counters differ from the stored rows. Should be empty.';

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
'Imports by UTC day of registration.';

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
'Sessions by UTC day, computed when queried.';

-- Every domain has an overview with these columns.
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
'Summary of the domain for `backfills status`. A single row.';

-- IDs that the job inserted are not included: its sessions show them.
create table kintell.backfill_job_claims (
    job_id uuid not null references kintell.backfill_jobs on delete cascade,
    external_session_id text not null,
    primary key (job_id, external_session_id)
);
comment on table kintell.backfill_job_claims is
'Session IDs of an import''s file that already existed: skipped, updated or rejected.';

-- Checks the reference to the job once per statement instead of once per row.
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

-- The delete has locked the job's row, so it sees the sessions of every transaction that held the row.
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
