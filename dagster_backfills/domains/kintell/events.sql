-- Statements of the outbox, of the daily summary and of the checks.

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
-- How the publisher stands: what it has sent last, what waits, and what was in its way.
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
select id, failed_rows, open_errors, inserted_rows, inserted_in_batches from kintell.unaccounted_jobs order by created_at;

-- name: events_waiting_long
-- Events that should have left by now.
select e.position, e.event_type, e.session_id, e.created_at, p.last_error
from kintell.event_outbox as e
cross join kintell.event_publisher as p
where e.published_at is null and e.created_at < clock_timestamp() - make_interval(secs => :seconds)
order by e.position
limit 100;
