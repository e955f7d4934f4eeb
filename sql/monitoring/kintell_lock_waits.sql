-- The sessions that import workers wait for.
select
    waiting.pid,
    waiting.application_name as worker,
    clock_timestamp() - waiting.query_start as waits_for,
    blocking.pid as blocked_by,
    blocking.application_name as blocked_by_application,
    blocking.state as its_state,
    left(blocking.query, 100) as its_query
from pg_stat_activity as waiting
cross join lateral unnest(pg_blocking_pids(waiting.pid)) as blocker (pid)
inner join pg_stat_activity as blocking on blocker.pid = blocking.pid
where waiting.application_name like 'kintell %'
order by waits_for desc;
