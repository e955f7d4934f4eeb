-- Members that could not be scored, with the database's own message, the longest open first.
select
    f.asset,
    f.partition as day,
    f.unit as member_id,
    m.gym_id,
    f.message,
    f.attempts,
    f.first_seen,
    f.last_seen
from backfill.failures as f
left join scoring.members as m on f.unit = m.id
where f.asset like 'scoring/%' and f.resolved_at is null
order by f.first_seen;
