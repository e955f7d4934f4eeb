-- Statements of error files, replays and rollbacks.

-- name: errors
-- Open rejected rows after this row, in file order. Without `most`: all of them.
select row_number, error_message, row_values, replayable
from kintell.backfill_row_errors
where job_id = :job and resolved_at is null and row_number > coalesce(:after, 0)
order by row_number
limit :most;

-- name: near_users
-- Similar users' addresses for each address: in the same domain with the same beginning or end of the name, or with the
-- same name in another domain. At most the 50 nearest in length, because comparing them is expensive.
with requested as (
    select email, split_part(email, '@', 1) as name, split_part(email, '@', 2) as domain
    from unnest(:emails::text[]) as r (email)
),
people as (
    select email, split_part(lower(email), '@', 1) as name, split_part(lower(email), '@', 2) as domain
    from kintell.users
),
near as (
    select r.email as requested, p.email
    from requested as r inner join people as p on r.domain = p.domain and left(r.name, 3) = left(p.name, 3)
    union
    select r.email as requested, p.email
    from requested as r inner join people as p on r.domain = p.domain and right(r.name, 3) = right(p.name, 3)
    union
    select r.email as requested, p.email
    from requested as r inner join people as p on r.name = p.name
    where r.name <> ''
),
ranked as (
    select
        requested,
        email,
        row_number() over (partition by requested order by abs(length(email) - length(requested)), email) as place
    from near
)
select requested, array_agg(email) as emails from ranked where place <= 50 group by requested;

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
-- What a rollback would do: sessions to remove, to restore to their previous version, and to keep as edited since.
select
    count(*) filter (where was = 'inserted' and not edited) as removes,
    count(*) filter (where was = 'rewritten' and not edited) as restores,
    count(*) filter (where edited) as keeps,
    coalesce((array_agg(external_session_id order by external_session_id) filter (where edited))[:100], '{}') as kept
from kintell.sessions_of_jobs
where job_id = :job;

-- name: hold_publisher$
-- Blocks the publisher while a rollback determines which events may have been sent.
select sending_upto from kintell.event_publisher for share;

-- name: sessions_to_roll_back
-- The sessions that a rollback removes (`was` is `inserted`) or restores (`rewritten`).
select id
from kintell.sessions_of_jobs
where job_id = :job and was = :was and not edited;

-- name: remove_sessions$
-- Remove a batch of the job's own sessions. Waiting events are deleted; for events that may have been sent, a
-- `rolled_back` event is added. Events are looked up by key only: right after an import the planner may underestimate the
-- number of waiting events and would scan all of them for each session.
with locked as (
    select id
    from kintell.kintell_sessions
    where id = any(:ids::uuid[]) and updated_at = created_at
    order by id
    for update
),
removed as (
    delete from kintell.kintell_sessions as s
    using locked as l
    where s.id = l.id
    returning s.id
),
events_of_removed as materialized (
    select
        e.session_id,
        e.event_type,
        e.position,
        e.external_session_id,
        e.published_at is not null or e.position <= :sending_upto as maybe_sent
    from removed as r
    inner join kintell.event_outbox as e on r.id = e.session_id and e.event_type = 'kintell.session.completed'
    where e.job_id = :job
),
unsent as (
    delete from kintell.event_outbox as e
    using events_of_removed as r
    where e.session_id = r.session_id and e.event_type = r.event_type and not r.maybe_sent
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
    from events_of_removed
    where maybe_sent
)
select count(*) from removed;

-- name: restore_sessions$
-- Restore the previous version of a batch of sessions that the job updated.
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

-- name: account_rollback!
update kintell.backfill_jobs
set
    removed_rows = removed_rows + :removed,
    restored_rows = restored_rows + :restored,
    heartbeat_at = clock_timestamp()
where id = :job and attempt = :attempt and activity = 'rollback';

-- name: finish_rollback!
update kintell.backfill_jobs
set
    status = 'rolled_back',
    rolled_back_at = clock_timestamp(),
    kept_rows = :kept,
    activity = null
where id = :job and attempt = :attempt and activity = 'rollback';
