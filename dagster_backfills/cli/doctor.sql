-- name: server
select
    current_setting('server_version_num')::integer as version,
    current_setting('server_version') as version_name,
    pg_is_in_recovery() as in_recovery,
    current_setting('default_transaction_read_only')::boolean as read_only,
    current_database() as database,
    pg_database_size(current_database()) as bytes;

-- name: clock$
select extract(epoch from clock_timestamp())::double precision as seconds;

-- name: connections$
-- Without those reserved for superusers. A role or a database may have a lower limit.
select least(
    current_setting('max_connections')::integer - current_setting('superuser_reserved_connections')::integer,
    (select nullif(r.rolconnlimit, -1) from pg_roles as r where r.rolname = current_user),
    (select nullif(d.datconnlimit, -1) from pg_database as d where d.datname = current_database())
) as available;

-- name: replication_role$
select current_setting('session_replication_role') as replication_role;

-- name: row_security
select c.oid::regclass::text as hiding
from pg_class as c
inner join pg_namespace as n on n.oid = c.relnamespace
where c.relkind in ('r', 'p') and c.relrowsecurity and row_security_active(c.oid)
    and n.nspname in (
        'backfill', 'training', 'progress', 'kintell', 'jobs', 'scoring', 'operations', 'dagster'
    )
order by n.nspname, c.relname;
