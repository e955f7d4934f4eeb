-- Statements for what comes after an import: error files, replay, rollback.

-- name: errors
-- Open rejected rows, in the file's order.
select row_number, error_message, row_values, replayable
from kintell.backfill_row_errors
where job_id = :job and resolved_at is null
order by row_number;

-- name: near_users
-- By address users' addresses that may be meant: of the same domain with the same beginning or the same end of the name,
-- or of the same name elsewhere. Of each the 50 nearest in length, as comparing them costs more than finding them.
with wanted as (
    select email, split_part(email, '@', 1) as name, split_part(email, '@', 2) as domain
    from unnest(:emails::text[]) as w (email)
),
people as (
    select email, split_part(lower(email), '@', 1) as name, split_part(lower(email), '@', 2) as domain
    from kintell.users
),
near as (
    select w.email as wanted, p.email
    from wanted as w inner join people as p on w.domain = p.domain and left(w.name, 3) = left(p.name, 3)
    union
    select w.email as wanted, p.email
    from wanted as w inner join people as p on w.domain = p.domain and right(w.name, 3) = right(p.name, 3)
    union
    select w.email as wanted, p.email
    from wanted as w inner join people as p on w.name = p.name
    where w.name <> ''
),
ranked as (
    select
        wanted,
        email,
        row_number() over (partition by wanted order by abs(length(email) - length(wanted)), email) as place
    from near
)
select wanted, array_agg(email) as emails from ranked where place <= 50 group by wanted;

-- name: count_errors$
select count(*) from kintell.backfill_row_errors where job_id = :job and resolved_at is null;

-- name: errors_beyond_ascii$
select count(*) > 0
from (
    select 1
    from kintell.backfill_row_errors
    where job_id = :job
        and resolved_at is null
        and octet_length(error_message || array_to_string(row_values, ''))
        <> char_length(error_message || array_to_string(row_values, ''))
    limit 1
) as found;

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

-- name: account_replay!
with accounted as (
    update kintell.backfill_jobs
    set
        failed_rows = failed_rows - (:inserted + :updated + :skipped),
        inserted_rows = inserted_rows + :inserted,
        updated_rows = updated_rows + :updated,
        skipped_rows = skipped_rows + :skipped,
        heartbeat_at = clock_timestamp()
    where id = :job and attempt = :attempt and activity = 'replay'
    returning id
)
insert into kintell.backfill_job_batches (
    job_id, activity, attempt, first_row, last_row, inserted_rows, updated_rows, skipped_rows, failed_rows, seconds
)
select
    id, 'replay' as activity, :attempt, :first_row, :last_row, :inserted, :updated, :skipped, :failed, 0 as seconds
from accounted;

-- name: rollback_preview^
-- What a rollback would do: sessions it removes, former versions it restores, and what it keeps as it was edited since.
select
    count(*) filter (where was = 'inserted' and not edited) as removes,
    count(*) filter (where was = 'rewritten' and not edited) as restores,
    count(*) filter (where edited) as keeps
from kintell.sessions_of_jobs
where job_id = :job;

-- name: kept_sessions
-- Sessions of the job that were edited since, which a rollback keeps.
select external_session_id
from kintell.sessions_of_jobs
where job_id = :job and edited
order by external_session_id
limit :most;

-- name: hold_publisher$
-- No event is sent while a rollback decides which ones have gone out.
select sending_upto from kintell.event_publisher for share;

-- name: sessions_to_roll_back
-- What a rollback removes (`was` is `inserted`), in the order in which it lies, or gives its former version back.
select id
from kintell.sessions_of_jobs
where job_id = :job and was = :was and not edited;

-- name: remove_sessions$
-- A batch of the job's own sessions. Events that still wait are taken back; for one that may have gone out, another
-- says that the session is gone. The events are found by their key alone: right behind an import the planner may believe
-- that few wait, and would go through all of them for each session.
with doomed as (
    select id
    from kintell.kintell_sessions
    where id = any(:ids::uuid[]) and updated_at = created_at
    order by id
    for update
),
removed as (
    delete from kintell.kintell_sessions as s
    using doomed as d
    where s.id = d.id
    returning s.id
),
told as materialized (
    select
        e.session_id,
        e.event_type,
        e.position,
        e.external_session_id,
        e.published_at is not null or e.position <= :sending_upto as gone_out
    from removed as r
    inner join kintell.event_outbox as e on r.id = e.session_id and e.event_type = 'kintell.session.completed'
    where e.job_id = :job
),
taken_back as (
    delete from kintell.event_outbox as e
    using told as t
    where e.session_id = t.session_id and e.event_type = t.event_type and not t.gone_out
),
events as (
    insert into kintell.event_outbox (session_id, event_type, position, id, job_id, external_session_id)
    select
        session_id,
        'kintell.session.rolled_back' as event_type,
        :position::bigint + row_number() over (order by position) as position,
        gen_random_uuid() as event_id,
        :job::uuid as job_id,
        external_session_id
    from told
    where gone_out
)
select count(*) from removed;

-- name: restore_sessions$
-- A batch of the sessions that the job rewrote, given their former version back.
with due as (
    select u.session_id, u.previous, u.updated_at
    from kintell.backfill_job_updates as u
    inner join kintell.kintell_sessions as s on u.session_id = s.id and u.updated_at = s.updated_at
    where u.job_id = :job and u.session_id = any(:ids::uuid[])
    order by u.session_id
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
