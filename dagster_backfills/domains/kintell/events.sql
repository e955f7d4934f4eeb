-- Statements of the outbox, the daily summary and the checks.

-- name: try_publisher$
-- Session-level lock: a single publisher sends events, in order. Returns false if another session holds it.
select pg_try_advisory_lock(hashtext('kintell.event_publisher'), 0);

-- name: count_waiting$
select count(*) from (select 1 from kintell.event_outbox where published_at is null limit :most) as waiting;

-- name: lock_publisher$
select sending_upto from kintell.event_publisher for update;

-- name: waiting_events
-- The next events to send. A job's events are in file order, because a batch commits after the previous one.
select position, id::text, event_type, payload::text
from kintell.event_payloads
where published_at is null
order by position
limit :most;

-- name: announce_sending!
update kintell.event_publisher set sending_upto = greatest(sending_upto, :upto);

-- name: mark_published!
update kintell.event_outbox
set published_at = clock_timestamp()
where position = any(:positions::bigint[]) and published_at is null;

-- name: publishing^
-- The publisher's state: the last publication, the number of waiting events, the last error.
select
    p.last_published_at,
    (select count(*) from kintell.event_outbox as e where e.published_at is null) as waiting,
    p.last_error
from kintell.event_publisher as p;

-- name: note_published!
update kintell.event_publisher set last_published_at = clock_timestamp(), last_error = null, last_error_at = null;

-- name: note_publish_error!
update kintell.event_publisher set last_error = :error, last_error_at = clock_timestamp();

-- name: stale_days
-- Days whose sessions changed since they were summarized.
select partition from backfill.stale where asset = 'kintell/daily_session_summary' order by partition;

-- name: daily_session_summary
-- One row per day (UTC) that has sessions.
select
    requested.day,
    count(*) as sessions,
    count(*) filter (where s.session_type = 'language') as language_sessions,
    count(*) filter (where s.session_type = 'mentorship') as mentorship_sessions,
    count(distinct s.participant_id) as participants,
    count(distinct s.volunteer_id) as volunteers,
    sum(s.duration_minutes) as total_minutes,
    round(avg(s.duration_minutes), 2) as average_duration_minutes,
    count(s.rating) as rated_sessions,
    round(avg(s.rating), 2) as average_rating
from (select distinct k::date as day from unnest(:partition_keys::text[]) as k) as requested
inner join kintell.kintell_sessions as s
    on s.scheduled_at >= requested.day::timestamp at time zone 'UTC'
        and s.scheduled_at < (requested.day + 1)::timestamp at time zone 'UTC'
group by requested.day;

-- name: dead_imports
-- Jobs whose worker has stopped its heartbeat. `backfills kintell resume JOB` takes them over.
select id, file_name, activity, attempt, heartbeat_at, run_id
from kintell.backfill_jobs
where activity is not null and heartbeat_at < clock_timestamp() - make_interval(secs => :lease)
order by heartbeat_at;

-- name: unaccounted_jobs
-- Jobs whose counters do not match their rows.
select id, failed_rows, open_errors, inserted_rows, inserted_in_batches from kintell.unaccounted_jobs order by created_at;

-- name: events_waiting_long
-- Events that have been waiting too long.
select e.position, e.event_type, e.session_id, e.created_at, p.last_error
from kintell.event_outbox as e
cross join kintell.event_publisher as p
where e.published_at is null and e.created_at < clock_timestamp() - make_interval(secs => :seconds)
order by e.position
limit 100;
