-- Statements of the session import. Each runs as it stands in psql, with its binds given as variables.

-- name: count_users$
select count(*) from kintell.users;

-- name: copy_users!
copy (select email, id from kintell.users) to stdout (format csv);

-- name: find_users
select distinct on (wanted.email) wanted.email, u.id::text
from unnest(:emails::text[]) as wanted (email)
inner join kintell.users as u on lower(u.email) = lower(wanted.email);

-- name: create_users!
insert into kintell.users (email, name, role)
select new.email, new.name, :role::text
from unnest(:emails::text[], :names::text[]) as new (email, name)
on conflict (lower(email)) do nothing;

-- name: lock_content$
-- One registration of a content at a time, to the end of the transaction.
select pg_advisory_xact_lock(hashtext('kintell.backfill_jobs'), hashtext(:sha256::text))::text;

-- name: job_by_content^
-- The newest job of a content that still counts: unfinished first, else finished.
select id, status
from kintell.backfill_jobs
where file_sha256 = :sha256 and status in ('pending', 'running', 'paused', 'failed', 'completed')
order by status = 'completed', created_at desc
limit 1;

-- name: register_job$
insert into kintell.backfill_jobs (
    file_name, file_url, file_size, file_sha256, file_stamp, columns, line_break, on_duplicate, total_rows,
    checkpoint_offset
)
values (
    :file_name, :file_url, :file_size, :file_sha256, :file_stamp, :columns, :line_break, :on_duplicate, :total_rows,
    :data_offset
)
returning id;

-- name: job
select
    id, status, file_name, file_url, file_size, file_sha256, file_stamp, columns, line_break, on_duplicate, total_rows,
    processed_rows, inserted_rows, updated_rows, skipped_rows, failed_rows, missing_users, last_processed_row,
    checkpoint_offset, attempt, activity, heartbeat_at, run_id, error_message, error_file, created_at, started_at,
    completed_at, rollback_started_at, rolled_back_at, removed_rows, restored_rows, kept_rows
from kintell.backfill_jobs
where id = :job;

-- name: jobs
select
    id, status, file_name, file_url, file_size, file_sha256, file_stamp, columns, line_break, on_duplicate, total_rows,
    processed_rows, inserted_rows, updated_rows, skipped_rows, failed_rows, missing_users, last_processed_row,
    checkpoint_offset, attempt, activity, heartbeat_at, run_id, error_message, error_file, created_at, started_at,
    completed_at, rollback_started_at, rolled_back_at, removed_rows, restored_rows, kept_rows
from kintell.backfill_jobs
order by created_at desc
limit :most;

-- name: lock_claims$
-- Claims are decided one at a time, to the end of the transaction.
select pg_advisory_xact_lock(hashtext('kintell.claims'))::text;

-- name: claim_state^
-- Without a lock: a suspended worker may hold the row.
select
    status,
    activity,
    attempt,
    run_id,
    rollback_started_at is not null as rolling_back,
    coalesce(heartbeat_at > clock_timestamp() - make_interval(secs => :lease), false) as fresh,
    extract(epoch from clock_timestamp() - heartbeat_at)::float8 as heartbeat_age
from kintell.backfill_jobs
where id = :job;

-- name: try_hold$
-- Held by the worker's own connection for as long as it lives: free means that no worker is there.
select pg_try_advisory_lock(hashtext('kintell.job'), hashtext(:job::text));

-- name: running_elsewhere$
select count(*)
from kintell.backfill_jobs
where activity = 'import'
    and status = 'running'
    and id <> :job
    and heartbeat_at > clock_timestamp() - make_interval(secs => :lease);

-- name: end_other_workers$
-- Connections of earlier attempts: whatever they have open is rolled back, so that nothing waits for them.
select count(pg_terminate_backend(pid))
from pg_stat_activity
where datname = current_database()
    and pid <> pg_backend_pid()
    and application_name like 'kintell ' || :job::text || ' %%';

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
update kintell.backfill_jobs
set activity = null, heartbeat_at = clock_timestamp()
where id = :job and attempt = :attempt and status <> 'running';

-- name: lock_batch$
select pg_advisory_xact_lock(hashtext(:job::text), :number::integer)::text;

-- name: await_batch$
select pg_advisory_xact_lock_shared(hashtext(:job::text), :number::integer)::text;

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
    language_level text
) on commit delete rows;

-- name: copy_stage!
copy pg_temp.import_stage from stdin (format csv);

-- name: insert_sessions$
-- The staged rows of a range that are new, and an event for each. Ids rise with the row number.
with new as (
    insert into kintell.kintell_sessions (
        id, external_session_id, session_type, participant_id, volunteer_id, scheduled_at, completed_at,
        duration_minutes, rating, feedback_text, language_level, backfill_job_id
    )
    select
        id, external_session_id, session_type, participant_id, volunteer_id, scheduled_at, scheduled_at,
        duration_minutes, rating, feedback_text, language_level, :job::uuid
    from import_stage
    where row_number between :first_row and :last_row
    on conflict (external_session_id) do nothing
    returning
        id, external_session_id, session_type, participant_id, volunteer_id, scheduled_at, completed_at,
        duration_minutes, language_level, created_at
),
numbered as (
    select row_number() over (order by id) as n, gen_random_uuid() as event_id, new.* from new
),
events as (
    insert into kintell.event_outbox (position, id, event_type, job_id, session_id, payload)
    select
        :position::bigint + :first_row - :batch_first_row + n,
        event_id,
        'kintell.session.completed',
        :job::uuid,
        id,
        json_build_object(
            'id', event_id,
            'time', created_at,
            'sessionId', id,
            'externalSessionId', external_session_id,
            'sessionType', session_type,
            'participantId', participant_id,
            'volunteerId', volunteer_id,
            'scheduledAt', scheduled_at,
            'completedAt', completed_at,
            'durationMinutes', duration_minutes,
            'languageLevel', language_level
        )
    from numbered
)
select count(*) from new;

-- name: staged_but_not_inserted
select s.row_number, s.external_session_id
from import_stage as s
where s.row_number between :first_row and :last_row
    and not exists (select from kintell.kintell_sessions as k where k.id = s.id)
order by s.row_number;

-- name: update_sessions
-- Sessions that were there and differ: their former self is kept, then they are rewritten. A column that the file
-- does not have is left as it is.
with differing as (
    select k.id, s.row_number, to_jsonb(k) as previous, clock_timestamp() as changed_at
    from import_stage as s
    inner join kintell.kintell_sessions as k on k.external_session_id = s.external_session_id and k.id <> s.id
    where s.row_number between :first_row and :last_row
        and (
            (k.session_type, k.participant_id, k.volunteer_id, k.scheduled_at, k.completed_at, k.duration_minutes)
            is distinct from
            (s.session_type, s.participant_id, s.volunteer_id, s.scheduled_at, s.scheduled_at, s.duration_minutes)
            or (:has_rating and k.rating is distinct from s.rating)
            or (:has_feedback_text and k.feedback_text is distinct from s.feedback_text)
            or (:has_language_level and k.language_level is distinct from s.language_level)
        )
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
    rating = case when :has_rating then s.rating else k.rating end,
    feedback_text = case when :has_feedback_text then s.feedback_text else k.feedback_text end,
    language_level = case when :has_language_level then s.language_level else k.language_level end,
    updated_at = d.changed_at
from differing as d
inner join import_stage as s on d.row_number = s.row_number
where k.id = d.id
returning d.row_number;

-- name: copy_row_errors!
copy kintell.backfill_row_errors (job_id, row_number, error_message, row_values, replayable) from stdin;

-- name: add_batch!
insert into kintell.backfill_job_batches (
    job_id, activity, attempt, first_row, last_row, byte_from, byte_to, inserted_rows, updated_rows, skipped_rows,
    failed_rows, claimed_ids, seconds
)
values (
    :job, :activity, :attempt, :first_row, :last_row, :byte_from, :byte_to, :inserted, :updated, :skipped, :failed,
    :claimed_ids, :seconds
);

-- name: move_checkpoint^
-- The fence and the account in one: nothing is written unless the attempt holds the job and stands where it thinks.
update kintell.backfill_jobs
set
    processed_rows = processed_rows + :rows,
    inserted_rows = inserted_rows + :inserted,
    updated_rows = updated_rows + :updated,
    skipped_rows = skipped_rows + :skipped,
    failed_rows = failed_rows + :failed,
    last_processed_row = last_processed_row + :rows,
    checkpoint_offset = :byte_to,
    heartbeat_at = clock_timestamp(),
    status = case when too_many.reason is null then status else 'failed' end,
    error_message = too_many.reason
from (
    select case
        when b.failed_rows + :failed > :max_errors::bigint
            then 'Stopped: ' || (b.failed_rows + :failed) || ' rows were rejected, max_errors is ' || :max_errors::bigint
        when b.processed_rows + :rows >= least(1000, b.total_rows)
            and (b.failed_rows + :failed)::float8 / nullif(b.processed_rows + :rows, 0) > :max_error_ratio::float8
            then 'Stopped: ' || (b.failed_rows + :failed) || ' of ' || (b.processed_rows + :rows)
                || ' rows were rejected, max_error_ratio is ' || :max_error_ratio::float8
    end as reason
    from kintell.backfill_jobs as b
    where b.id = :job
) as too_many
where id = :job
    and attempt = :attempt
    and status = 'running'
    and checkpoint_offset = :byte_from
    and last_processed_row = :first_row - 1
returning status, processed_rows, failed_rows;

-- name: complete_job!
update kintell.backfill_jobs
set status = 'completed', completed_at = clock_timestamp(), activity = null, heartbeat_at = clock_timestamp()
where id = :job and attempt = :attempt and status = 'running';

-- name: fail_job!
update kintell.backfill_jobs
set status = 'failed', error_message = :message, activity = null
where id = :job and attempt = :attempt and status in ('pending', 'running');

-- name: set_status!
-- Pause and cancel: the worker's next batch finds that the job is no longer running, and nothing of it is written.
update kintell.backfill_jobs
set status = :status, activity = null
where id = :job and status = any(:from_status::text[]) and coalesce(activity, 'import') = 'import';

-- name: set_error_file!
update kintell.backfill_jobs set error_file = :url where id = :job;

-- name: set_missing_users!
update kintell.backfill_jobs set missing_users = :missing where id = :job;

-- name: claimed_ids
select claimed_ids from kintell.backfill_job_batches where job_id = :job order by batch_no;

-- name: existing_ids
select external_session_id from kintell.kintell_sessions where external_session_id = any(:ids::text[]);

-- name: existing_sessions
select
    external_session_id, session_type, participant_id::text, volunteer_id::text, scheduled_at, duration_minutes, rating,
    feedback_text, language_level
from kintell.kintell_sessions
where external_session_id = any(:ids::text[]);

-- name: errors
-- Open rejected rows, in the file's order.
select row_number, error_message, row_values
from kintell.backfill_row_errors
where job_id = :job and resolved_at is null
order by row_number;

-- name: count_errors$
select count(*) from kintell.backfill_row_errors where job_id = :job and resolved_at is null;

-- name: frequent_errors
-- The messages without the value they quote, the most frequent first.
select kind, count(*) as rows
from kintell.backfill_row_errors as e
cross join lateral (select distinct split_part(part, ': ', 1) as kind from regexp_split_to_table(
    e.error_message, '; (?=[A-Z])'
) as part) as kinds
where e.job_id = :job and e.resolved_at is null
group by kind
order by count(*) desc, kind
limit :most;

-- name: open_errors
-- The next rejected rows that a replay may import.
select row_number, row_values, error_message
from kintell.backfill_row_errors
where job_id = :job and row_number > :after_row and replayable and resolved_at is null
order by row_number
limit :most;

-- name: resolve_errors!
update kintell.backfill_row_errors
set resolved_at = clock_timestamp()
where job_id = :job and row_number = any(:rows::bigint[]);

-- name: reword_errors!
update kintell.backfill_row_errors as e
set error_message = new.message
from unnest(:rows::bigint[], :messages::text[]) as new (row_number, message)
where e.job_id = :job and e.row_number = new.row_number and e.error_message <> new.message;

-- name: account_replay^
update kintell.backfill_jobs
set
    failed_rows = failed_rows - (:inserted + :updated + :skipped),
    inserted_rows = inserted_rows + :inserted,
    updated_rows = updated_rows + :updated,
    skipped_rows = skipped_rows + :skipped,
    heartbeat_at = clock_timestamp()
where id = :job and attempt = :attempt and activity = 'replay'
returning failed_rows;

-- name: rollback_preview^
-- What a rollback would do: sessions it removes, former versions it restores, and what it keeps as it was edited since.
select
    (
        select count(*)
        from kintell.kintell_sessions
        where backfill_job_id = :job and updated_at = created_at
    ) as removes,
    (
        select count(*)
        from kintell.backfill_job_updates as u
        inner join kintell.kintell_sessions as s on u.session_id = s.id and u.updated_at = s.updated_at
        where u.job_id = :job
    ) as restores,
    (
        select count(*)
        from kintell.kintell_sessions
        where backfill_job_id = :job and updated_at <> created_at
    ) as keeps_inserted,
    (
        select count(*)
        from kintell.backfill_job_updates as u
        inner join kintell.kintell_sessions as s on u.session_id = s.id and u.updated_at <> s.updated_at
        where u.job_id = :job
    ) as keeps_updated;

-- name: kept_sessions
-- Sessions of the job that were edited since, which a rollback keeps.
select s.external_session_id
from kintell.kintell_sessions as s
where s.backfill_job_id = :job and s.updated_at <> s.created_at
union all
select s.external_session_id
from kintell.backfill_job_updates as u
inner join kintell.kintell_sessions as s on u.session_id = s.id and u.updated_at <> s.updated_at
where u.job_id = :job
order by 1
limit :most;

-- name: hold_publisher$
-- No event is sent while a rollback decides which ones have gone out.
select sending_upto from kintell.event_publisher for share;

-- name: remove_sessions^
-- A batch of the job's own sessions. Events that still wait are taken back; for one that may have gone out, another
-- says that the session is gone.
with doomed as (
    select id
    from kintell.kintell_sessions
    where backfill_job_id = :job and updated_at = created_at
    order by id
    limit :most
    for update
),
removed as (
    delete from kintell.kintell_sessions as s
    using doomed as d
    where s.id = d.id and s.updated_at = s.created_at
    returning s.id, s.external_session_id
),
taken_back as (
    delete from kintell.event_outbox as e
    using removed as r
    where e.job_id = :job
        and e.session_id = r.id
        and e.event_type = 'kintell.session.completed'
        and e.published_at is null
        and e.position > :sending_upto
    returning e.session_id
),
gone_out as (
    select r.*, gen_random_uuid() as event_id, row_number() over (order by e.position) as n
    from removed as r
    inner join kintell.event_outbox as e
        on r.id = e.session_id and e.job_id = :job and e.event_type = 'kintell.session.completed'
    where e.published_at is not null or e.position <= :sending_upto
),
events as (
    insert into kintell.event_outbox (position, id, event_type, job_id, session_id, payload)
    select
        :position::bigint + n,
        event_id,
        'kintell.session.rolled_back',
        :job::uuid,
        id,
        json_build_object(
            'id', event_id, 'time', now(), 'sessionId', id, 'externalSessionId', external_session_id, 'jobId', :job::uuid
        )
    from gone_out
)
select
    (select count(*) from removed) as removed,
    (select count(*) from taken_back) as taken_back,
    (select count(*) from gone_out) as gone_out;

-- name: restore_sessions$
-- A batch of the sessions that the job rewrote, given their former version back.
with due as (
    select u.session_id, u.previous, u.updated_at
    from kintell.backfill_job_updates as u
    inner join kintell.kintell_sessions as s on u.session_id = s.id and u.updated_at = s.updated_at
    where u.job_id = :job
    order by u.session_id
    limit :most
    for update of s
),
restored as (
    update kintell.kintell_sessions as s
    set
        session_type = old.session_type,
        participant_id = old.participant_id,
        volunteer_id = old.volunteer_id,
        scheduled_at = old.scheduled_at,
        completed_at = old.completed_at,
        duration_minutes = old.duration_minutes,
        rating = old.rating,
        feedback_text = old.feedback_text,
        language_level = old.language_level,
        updated_at = old.updated_at
    from due as d
    cross join lateral jsonb_populate_record(null::kintell.kintell_sessions, d.previous) as old
    where s.id = d.session_id
    returning s.id
),
forgotten as (
    delete from kintell.backfill_job_updates as u
    using restored as r
    where u.job_id = :job and u.session_id = r.id
)
select count(*) from restored;

-- name: account_rollback^
update kintell.backfill_jobs
set
    removed_rows = removed_rows + :removed,
    restored_rows = restored_rows + :restored,
    heartbeat_at = clock_timestamp()
where id = :job and attempt = :attempt and activity = 'rollback'
returning removed_rows;

-- name: finish_rollback!
update kintell.backfill_jobs
set
    status = 'rolled_back',
    rolled_back_at = clock_timestamp(),
    kept_rows = :kept,
    activity = null
where id = :job and attempt = :attempt and activity = 'rollback';

-- name: try_publisher$
-- One publisher at a time, for as long as its connection lives: events leave in order.
select pg_try_advisory_lock(hashtext('kintell.event_publisher'), 0);

-- name: count_waiting$
select count(*) from (select 1 from kintell.event_outbox where published_at is null limit :most) as waiting;

-- name: lock_publisher$
select sending_upto from kintell.event_publisher for update;

-- name: waiting_events
-- The next events to send. Those of one job are in the file's order; a batch commits only after the one before it.
select position, id::text, event_type, payload::text
from kintell.event_outbox
where published_at is null
order by position
limit :most;

-- name: announce_sending!
update kintell.event_publisher set sending_upto = greatest(sending_upto, :upto);

-- name: mark_published!
update kintell.event_outbox
set published_at = clock_timestamp()
where position = any(:positions::bigint[]) and published_at is null;

-- name: note_published!
update kintell.event_publisher set last_published_at = clock_timestamp(), last_error = null, last_error_at = null;

-- name: note_publish_error!
update kintell.event_publisher set last_error = :error, last_error_at = clock_timestamp();

-- name: stale_days
-- Days whose sessions have changed since they were summarized, with how long ago.
select partition from backfill.stale where asset = 'kintell/daily_session_summary' order by partition;

-- name: count_stale_days$
select count(distinct partition) from backfill.stale_marks where asset = 'kintell/daily_session_summary';

-- name: daily_session_summary
-- One row a day (UTC) that has sessions.
select
    wanted.day,
    count(*) as sessions,
    count(*) filter (where s.session_type = 'language') as language_sessions,
    count(*) filter (where s.session_type = 'mentorship') as mentorship_sessions,
    count(distinct s.participant_id) as participants,
    count(distinct s.volunteer_id) as volunteers,
    sum(s.duration_minutes) as total_minutes,
    round(avg(s.duration_minutes), 2) as average_duration_minutes,
    count(s.rating) as rated_sessions,
    round(avg(s.rating), 2) as average_rating
from (select distinct k::date as day from unnest(:partition_keys::text[]) as k) as wanted
inner join kintell.kintell_sessions as s
    on s.scheduled_at >= wanted.day::timestamp at time zone 'UTC'
        and s.scheduled_at < (wanted.day + 1)::timestamp at time zone 'UTC'
group by wanted.day;

-- name: dead_imports
-- Jobs whose worker no longer answers: `backfills kintell resume JOB` takes them over.
select id, file_name, activity, attempt, heartbeat_at, run_id
from kintell.backfill_jobs
where activity is not null and heartbeat_at < clock_timestamp() - make_interval(secs => :lease)
order by heartbeat_at;

-- name: unaccounted_jobs
-- Jobs whose counters differ from the rows that are there.
select j.id, j.failed_rows, e.open_errors, j.inserted_rows, b.inserted_in_batches
from kintell.backfill_jobs as j
cross join lateral (
    select count(*) as open_errors from kintell.backfill_row_errors as r where r.job_id = j.id and r.resolved_at is null
) as e
cross join lateral (
    select coalesce(sum(bb.inserted_rows), 0) as inserted_in_batches
    from kintell.backfill_job_batches as bb
    where bb.job_id = j.id
) as b
where j.activity is null and (j.failed_rows <> e.open_errors or j.inserted_rows <> b.inserted_in_batches)
order by j.created_at;

-- name: events_waiting_long
-- Events that should have left by now.
select e.position, e.event_type, e.session_id, e.created_at, p.last_error
from kintell.event_outbox as e
cross join kintell.event_publisher as p
where e.published_at is null and e.created_at < clock_timestamp() - make_interval(secs => :seconds)
order by e.position
limit 100;
