-- Statements of the session import. Each can be run in psql with its binds as variables.

-- name: count_users$
select count(*) from kintell.users;

-- name: all_users
select email, uuid_send(id) as id from kintell.users;

-- name: find_users
-- A user for each address, found by its own spelling or by another one.
select distinct on (requested.email) requested.email, uuid_send(u.id) as id
from unnest(:emails::text[], :spelled::text[]) as requested (email, spelled)
inner join kintell.users as u on lower(u.email) = lower(requested.spelled)
order by requested.email, requested.spelled = requested.email desc;

-- name: create_users!
insert into kintell.users (email, name, role)
select new.email, new.name, :role::text
from unnest(:emails::text[], :names::text[]) as new (email, name)
on conflict (lower(email)) do nothing;

-- name: lock_content$
-- Transaction-level lock: the same content is registered by one session at a time.
select pg_advisory_xact_lock(hashtext('kintell.backfill_jobs'), hashtext(:sha256::text))::text;

-- name: job_by_content$
-- The newest unfinished job with this content; else, if `finished`, the newest completed one.
select id
from kintell.backfill_jobs
where file_sha256 = :sha256
    and sheet = :sheet
    and (status in ('pending', 'running', 'paused', 'failed') or (:finished and status = 'completed'))
order by status = 'completed', created_at desc
limit 1;

-- name: mapping_of_headers^
select mapping, mapped_at::date::text, mapped_by from kintell.header_mappings where headers_sha256 = :digest;

-- name: remember_mapping!
insert into kintell.header_mappings as known (headers_sha256, headers, mapping)
values (:digest, :headers, :mapping)
on conflict (headers_sha256) do update
set headers = excluded.headers, mapping = excluded.mapping, mapped_by = default, mapped_at = default
where known.mapping is distinct from excluded.mapping;

-- name: job_of_runs$
-- The newest job that one of these runs registered or worked on.
select id from kintell.backfill_jobs where run_id = any(:run_ids::text[]) order by created_at desc limit 1;

-- name: register_job$
insert into kintell.backfill_jobs (
    file_name, file_url, file_size, file_sha256, file_stamp, columns, delimiter, recognized, sheet, encoding, mapping,
    on_duplicate, total_rows, checkpoint_offset, missing_users, run_id
)
values (
    :file_name, :file_url, :file_size, :file_sha256, :file_stamp, :columns, :delimiter, :recognized, :sheet, :encoding,
    :mapping, :on_duplicate, :total_rows, :data_offset, :missing, :run_id
)
returning id;

-- name: relocate_job$
-- Point the job to another copy of the same file, unless a worker holds the job.
update kintell.backfill_jobs
set file_url = :url, file_stamp = :stamp
where id = :job and file_sha256 = :sha256 and activity is null
returning id;

-- name: jobs
-- One job by ID, or the newest jobs.
select
    id, status, file_name, file_url, file_size, file_sha256, file_stamp, columns, delimiter, recognized, sheet,
    encoding, mapping, on_duplicate, total_rows, processed_rows, inserted_rows, updated_rows, skipped_rows, failed_rows,
    missing_users, last_processed_row, checkpoint_offset, attempt, activity, heartbeat_at, run_id, error_message, error_file, created_at, started_at,
    completed_at, rollback_started_at, rolled_back_at, removed_rows, restored_rows, kept_rows
from kintell.backfill_jobs
where :job::uuid is null or id = :job
order by created_at desc
limit :most;

-- name: lock_claims$
-- Transaction-level lock: one claim is made at a time.
select pg_advisory_xact_lock(hashtext('kintell.claims'))::text;

-- name: heartbeat_age$
-- Seconds since the holder's last heartbeat. No row if its lease has expired or the claim's connection is gone. Takes no
-- row lock, because a suspended worker may hold one.
select extract(epoch from clock_timestamp() - heartbeat_at)::float8
from kintell.backfill_jobs as j
where id = :job
    and activity is not null
    and heartbeat_at > clock_timestamp() - make_interval(secs => :lease)
    and exists (
        select from pg_stat_activity
        where datname = current_database()
            and application_name like 'kintell ' || j.id || ' ' || j.attempt || ' claim%'
    );

-- name: running_elsewhere$
select count(*)
from kintell.backfill_jobs
where activity = 'import'
    and status = 'running'
    and id <> :job
    and heartbeat_at > clock_timestamp() - make_interval(secs => :lease);

-- name: end_other_workers$
-- Terminate the connections of earlier attempts, so that their open transactions release their locks.
select count(pg_terminate_backend(pid))
from pg_stat_activity
where datname = current_database()
    and pid <> pg_backend_pid()
    and application_name like 'kintell ' || :job::text || ' %';

-- name: claim$
update kintell.backfill_jobs
set
    attempt = attempt + 1,
    activity = :activity,
    status = case when :activity = 'import' then 'running' else status end,
    started_at = coalesce(started_at, clock_timestamp()),
    completed_at = case when :activity = 'import' then null else completed_at end,
    rollback_started_at
        = case when :activity = 'rollback' then coalesce(rollback_started_at, clock_timestamp()) end,
    heartbeat_at = clock_timestamp(),
    error_message = case when :activity = 'import' then null else error_message end,
    run_id = coalesce(:run_id, run_id)
where id = :job and attempt = :seen_attempt and status = :seen_status
returning attempt;

-- name: beat!
update kintell.backfill_jobs
set heartbeat_at = clock_timestamp()
where id = :job and attempt = :attempt and activity is not null;

-- name: release!
-- However an attempt ended, its job does not stay `running`.
update kintell.backfill_jobs
set
    status = case when status = 'running' then :ending::text else status end,
    error_message = case when status = 'running' then :message::text else error_message end,
    activity = null,
    heartbeat_at = clock_timestamp()
where id = :job and attempt = :attempt;

-- name: begin_turn$
-- Each batch holds the lock of its number, from before the next batch starts until its own transaction has ended.
select pg_advisory_lock(hashtext(:job::text), :number::integer)::text;

-- name: await_turn$
-- Wait until the batch with this number has ended. Waiting in Postgres lets it detect deadlocks.
select pg_advisory_xact_lock_shared(hashtext(:job::text), :number::integer)::text;

-- name: end_turn$
select pg_advisory_unlock(hashtext(:job::text), :number::integer);

-- name: next_event_position$
select nextval('kintell.event_position');

-- name: create_stage!
create temporary table if not exists import_stage (
    row_number bigint not null,
    id uuid not null,
    external_session_id text not null,
    session_type text not null,
    participant_id uuid not null,
    volunteer_id uuid not null,
    scheduled_at timestamptz not null,
    duration_minutes integer not null,
    rating smallint,
    feedback_text text,
    language_level text,
    event_position bigint not null
) on commit delete rows;

-- name: copy_stage!
copy pg_temp.import_stage from stdin (format csv);

-- name: insert_sessions$
-- Insert the new rows of a range of staged rows, with an event for each.
with new as (
    insert into kintell.kintell_sessions (
        id, external_session_id, session_type, participant_id, volunteer_id, scheduled_at, completed_at,
        duration_minutes, rating, feedback_text, language_level, backfill_job_id
    )
    select
        id, external_session_id, session_type, participant_id, volunteer_id, scheduled_at,
        scheduled_at as completed_at, duration_minutes, rating, feedback_text, language_level,
        :job::uuid as backfill_job_id
    from import_stage
    where row_number between :first_row and :last_row
    on conflict (external_session_id) do nothing
    returning
        id, external_session_id, session_type, participant_id, volunteer_id, scheduled_at, completed_at,
        duration_minutes, language_level
),
events as (
    insert into kintell.event_outbox (
        session_id, event_type, position, id, job_id, external_session_id, session_type, participant_id, volunteer_id,
        scheduled_at, completed_at, duration_minutes, language_level
    )
    select
        n.id as session_id,
        'kintell.session.completed' as event_type,
        s.event_position as position,
        gen_random_uuid() as event_id,
        :job::uuid as job_id,
        n.external_session_id,
        n.session_type,
        n.participant_id,
        n.volunteer_id,
        n.scheduled_at,
        n.completed_at,
        n.duration_minutes,
        n.language_level
    from new as n
    inner join import_stage as s on n.id = s.id
)
select count(*) from new;

-- name: staged_but_not_inserted
-- Staged rows whose ID exists already, and whether a session of the same job has it.
select s.row_number, s.external_session_id, coalesce(k.backfill_job_id = :job::uuid, false) as own
from import_stage as s
left join kintell.kintell_sessions as k on s.external_session_id = k.external_session_id
where s.row_number between :first_row and :last_row
    and not exists (select from kintell.kintell_sessions as i where i.id = s.id)
order by s.row_number;

-- name: claim_ids
-- Claim IDs of existing sessions for the job. Returns those that it had not claimed before.
insert into kintell.backfill_job_claims (job_id, external_session_id)
select :job::uuid, claimed.id
from unnest(:ids::text[]) as claimed (id)
on conflict do nothing
returning external_session_id;

-- name: update_sessions!
-- Update existing sessions that differ, after storing their previous version. Columns that the file lacks are unchanged.
with differing as (
    select k.id, s.row_number, to_jsonb(k) as previous, clock_timestamp() as changed_at
    from import_stage as s
    inner join kintell.kintell_sessions as k on k.external_session_id = s.external_session_id and k.id <> s.id
    where s.row_number = any(:rows::bigint[])
        and kintell.changed_columns(
            k, s.session_type, s.participant_id, s.volunteer_id, s.scheduled_at, s.duration_minutes, s.rating,
            s.feedback_text, s.language_level, :columns::text[]
        ) <> '{}'
    order by k.id
    for update of k
),
kept as (
    insert into kintell.backfill_job_updates (job_id, session_id, previous, updated_at)
    select :job::uuid, id, previous, changed_at from differing
    on conflict (job_id, session_id) do update set updated_at = excluded.updated_at
)
update kintell.kintell_sessions as k
set
    session_type = s.session_type,
    participant_id = s.participant_id,
    volunteer_id = s.volunteer_id,
    scheduled_at = s.scheduled_at,
    completed_at = s.scheduled_at,
    duration_minutes = s.duration_minutes,
    rating = case when 'rating' = any(:columns::text[]) then s.rating else k.rating end,
    feedback_text = case when 'feedback_text' = any(:columns::text[]) then s.feedback_text else k.feedback_text end,
    language_level = case when 'language_level' = any(:columns::text[]) then s.language_level else k.language_level end,
    updated_at = d.changed_at
from differing as d
inner join import_stage as s on d.row_number = s.row_number
where k.id = d.id;

-- name: copy_row_errors!
copy kintell.backfill_row_errors (job_id, row_number, error_message, row_values, replayable)
from stdin (format "binary");

-- name: move_checkpoint^
-- Fence and counters in one statement: nothing is written unless the attempt holds the job at the expected checkpoint.
with moved as (
    update kintell.backfill_jobs
    set
        processed_rows = processed_rows + :rows,
        inserted_rows = inserted_rows + :inserted,
        updated_rows = updated_rows + :updated,
        skipped_rows = skipped_rows + :skipped,
        failed_rows = failed_rows + :failed,
        last_processed_row = last_processed_row + :rows,
        checkpoint_offset = :byte_to,
        heartbeat_at = clock_timestamp()
    where id = :job
        and attempt = :attempt
        and status = 'running'
        and checkpoint_offset = :byte_from
        and last_processed_row = :first_row - 1
    returning id, processed_rows, failed_rows
),
batch as (
    insert into kintell.backfill_job_batches (
        job_id, activity, attempt, first_row, last_row, byte_from, byte_to, inserted_rows, updated_rows, skipped_rows,
        failed_rows, seconds
    )
    select
        id, 'import' as activity, :attempt, :first_row, :last_row, :byte_from, :byte_to, :inserted, :updated, :skipped,
        :failed, :seconds
    from moved
)
select processed_rows, failed_rows from moved;

-- name: stop_job!
-- In the transaction of the batch that exceeded a limit.
update kintell.backfill_jobs set status = 'failed', error_message = :reason where id = :job;

-- name: complete_job!
update kintell.backfill_jobs
set status = 'completed', completed_at = clock_timestamp(), activity = null, heartbeat_at = clock_timestamp()
where id = :job and attempt = :attempt and status = 'running';

-- name: set_status!
-- Pause or cancel. The worker's next batch finds that the job is no longer running and is rolled back.
update kintell.backfill_jobs
set status = :status, activity = null
where id = :job and status = any(:from_status::text[]) and coalesce(activity, 'import') = 'import';

-- name: set_error_file!
update kintell.backfill_jobs set error_file = :url where id = :job;

-- name: settled_ids
-- The IDs that earlier rows of the job have: its own sessions and its claims on existing ones.
select external_session_id
from kintell.kintell_sessions
where external_session_id = any(:ids::text[]) and backfill_job_id = :job
union all
select external_session_id
from kintell.backfill_job_claims
where external_session_id = any(:ids::text[]) and job_id = :job;

-- name: staged_changes
-- The staged rows of a range whose session exists, with the columns that an update would change.
select
    s.row_number,
    kintell.changed_columns(
        k, s.session_type, s.participant_id, s.volunteer_id, s.scheduled_at, s.duration_minutes, s.rating,
        s.feedback_text, s.language_level, :columns::text[]
    ) as changed
from import_stage as s
inner join kintell.kintell_sessions as k on s.external_session_id = k.external_session_id
where s.row_number between :first_row and :last_row
order by s.row_number;

-- name: change_values
-- The values before and after an update, as they are written in a file: one line per value.
select s.row_number, s.external_session_id, v.name, v.before, v.after
from import_stage as s
inner join kintell.kintell_sessions as k on s.external_session_id = k.external_session_id
cross join lateral (values
    ('session_type', k.session_type, s.session_type),
    (
        'participant_email',
        (select u.email from kintell.users as u where u.id = k.participant_id),
        (select u.email from kintell.users as u where u.id = s.participant_id)
    ),
    (
        'volunteer_email',
        (select u.email from kintell.users as u where u.id = k.volunteer_id),
        (select u.email from kintell.users as u where u.id = s.volunteer_id)
    ),
    ('date', (k.scheduled_at at time zone 'UTC')::text, (s.scheduled_at at time zone 'UTC')::text),
    ('completed_at', (k.completed_at at time zone 'UTC')::text, (s.scheduled_at at time zone 'UTC')::text),
    ('duration_min', k.duration_minutes::text, s.duration_minutes::text),
    ('rating', k.rating::text, s.rating::text),
    ('feedback_text', k.feedback_text, s.feedback_text),
    ('language_level', k.language_level, s.language_level)
) as v (name, before, after)
where s.row_number = any(:rows::bigint[])
order by s.row_number;
