-- Postgres' statistics of tables. To run a statement in psql, set its variables with \set schema and \set name.

-- name: statistics^
-- The row count estimated by the last ANALYZE, and the number of rows inserted, updated and deleted since the
-- statistics were last reset. For a partitioned table, the sums over its partitions.
select
    sum(c.reltuples)::bigint as rows,
    coalesce(sum(s.n_tup_ins + s.n_tup_upd + s.n_tup_del), 0)::bigint as changes
from pg_class as c
left join pg_stat_all_tables as s on c.oid = s.relid
where c.relkind in ('r', 'f') and c.oid in (
    select to_regclass(quote_ident(:schema) || '.' || quote_ident(:name))
    union
    select p.relid from pg_partition_tree(to_regclass(quote_ident(:schema) || '.' || quote_ident(:name))) as p
)
having count(*) > 0;
