-- Jobs whose worker has sent no heartbeat for a minute. Take them over with: backfills kintell resume JOB
select id, file_name, activity, attempt, heartbeat_at, clock_timestamp() - heartbeat_at as silent_for, run_id
from kintell.backfill_jobs
where activity is not null and heartbeat_at < clock_timestamp() - interval '60 seconds'
order by heartbeat_at;
