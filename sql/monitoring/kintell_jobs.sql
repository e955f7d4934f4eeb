-- Imports of the last week, the newest first: how far, how fast, how many rows rejected.
select id, file_name, status, activity, percent, error_percent, rows_per_second, heartbeat_age, duration, error_message
from kintell.backfill_job_history
where created_at > now() - interval '7 days'
order by created_at desc;
