-- name: server
select
    current_setting('server_version_num')::integer as version,
    current_setting('server_version') as version_name,
    pg_is_in_recovery() as in_recovery,
    current_setting('default_transaction_read_only')::boolean as read_only,
    current_database() as database,
    pg_database_size(current_database()) as bytes;

-- name: clock
select extract(epoch from clock_timestamp())::double precision as seconds;

-- name: connections
-- What is taken of what is there, those kept for superusers aside.
select
    (select count(*) from pg_stat_activity where backend_type = 'client backend') as used,
    current_setting('max_connections')::integer
    - current_setting('superuser_reserved_connections')::integer as available;

-- name: vacuum
select
    current_setting('autovacuum')::boolean as autovacuum,
    (select max(age(d.datfrozenxid)) from pg_database as d) as transaction_age,
    current_setting('autovacuum_freeze_max_age')::bigint as freeze_age;

-- name: oldest_transaction
-- The oldest transaction that keeps dead rows from being cleaned up.
select
    a.pid,
    coalesce(nullif(a.application_name, ''), a.backend_type) as application,
    extract(epoch from clock_timestamp() - a.xact_start)::double precision as seconds
from pg_stat_activity as a
where a.xact_start is not null and a.backend_type = 'client backend' and a.pid <> pg_backend_pid()
order by a.xact_start
limit 1;

-- name: invalid_indexes
-- What a cut-off `create index concurrently` leaves behind: it costs writes and serves no read.
select format('%I.%I', n.nspname, c.relname) as index
from pg_index as i
inner join pg_class as c on c.oid = i.indexrelid
inner join pg_namespace as n on n.oid = c.relnamespace
where not i.indisvalid and n.nspname not in ('pg_catalog', 'pg_toast', 'information_schema')
order by n.nspname, c.relname;

-- name: indexes
select i.schemaname || '.' || i.indexname as index from pg_indexes as i;

-- name: data_folder
-- The view leaves out what this role may not see, which the writer may not.
select
    (select s.setting from pg_settings as s where s.name = 'data_directory') as path,
    inet_server_addr() is null as by_socket;

-- name: applied_migrations
select m.migration_id from backfill_migrations as m;
