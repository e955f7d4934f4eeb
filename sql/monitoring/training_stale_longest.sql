-- What has waited longest to be filled or counted. More than a few minutes: automation is off, or its runs fail.
select
    s.asset,
    s.partition as organization_id,
    s.since,
    now() - s.since as waiting,
    s.changes
from backfill.stale as s
where s.asset like 'training/%'
order by s.since, s.partition
limit 50;
