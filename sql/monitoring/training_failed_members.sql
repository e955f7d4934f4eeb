-- Members and organizations that could not be written, with the database's own message. A null member: all of it.
select
    f.partition as organization_id,
    f.unit as member_id,
    f.message,
    f.sqlstate,
    f.attempts,
    f.first_seen,
    f.last_seen,
    f.run_id
from backfill.failures as f
where f.asset like 'training/%' and f.resolved_at is null
order by f.last_seen desc, f.id;
