-- Descriptions of tables and views, besides their columns and keys.

-- name: relation^
-- Kind and comment; for a view also its definition and the tables and views that it reads.
select
    case c.relkind when 'v' then 'view' when 'm' then 'view' else 'table' end as kind,
    obj_description(c.oid, 'pg_class') as description,
    pg_get_viewdef(c.oid) as definition,
    array(
        select distinct n.nspname || '.' || t.relname
        from pg_rewrite as r
        inner join pg_depend as d on d.classid = 'pg_rewrite'::regclass and r.oid = d.objid
        inner join pg_class as t on d.refclassid = 'pg_class'::regclass and d.refobjid = t.oid
        inner join pg_namespace as n on t.relnamespace = n.oid
        where r.ev_class = c.oid and t.oid != c.oid and t.relkind in ('r', 'p', 'v', 'm', 'f')
        order by 1
    ) as reads
from pg_class as c
where c.oid = to_regclass(quote_ident(:schema) || '.' || quote_ident(:name));
