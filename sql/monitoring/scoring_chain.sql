-- The daily chain of the last 14 days, one row per day and asset, newest first, with the reason if it is not complete.
select
    c.day,
    c.asset,
    c.outcome,
    c.expected,
    c.done,
    c.failed,
    c.reason,
    c.finished_at - c.started_at as took,
    c.run_id
from scoring.chain_days as c
where c.day >= (now() at time zone 'UTC')::date - 14
order by c.day desc, c.started_at;
