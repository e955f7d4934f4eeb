-- Imports of the last week, newest first: progress, speed, error rate.
select id, file_name, status, activity, percent, error_percent, rows_per_second, heartbeat_age, duration, error_message
from kintell.backfill_job_history
where created_at > now() - interval '7 days'
order by created_at desc;
