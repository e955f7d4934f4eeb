-- What is known of tables without reading them. Each statement runs in psql: \set schema, \set name and go.

-- name: statistics^
-- Rows as the last ANALYZE counted them, and how many have been inserted, updated and deleted since the statistics
-- began; of a partitioned table, its parts' together.
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
