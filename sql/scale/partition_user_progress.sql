-- Partitions progress.user_progress into 64 parts by the hash of the student, for hundreds of millions of rows. Not a
-- migration: run it once, when docs/scale.md recommends it. The key, foreign keys, triggers and all statements stay the
-- same.
--
-- It copies the table in one transaction and locks it meanwhile: saving progress waits, reading statistics does not. It
-- needs disk space for a second copy. To undo it, rename progress.user_progress_whole back before dropping it.
--
--     psql "$DATABASE_URL" -v ON_ERROR_STOP=1 -f sql/scale/partition_user_progress.sql
begin;
set local lock_timeout = '5s';
set local maintenance_work_mem = '1GB';
lock table progress.user_progress in access exclusive mode;

-- Constraints, indexes, triggers and privileges of the table, to be recreated on the new one.
create temporary table hanging on commit drop as
select
    1 as turn,
    'alter table progress.user_progress add constraint ' || quote_ident(c.conname)
    || ' ' || pg_get_constraintdef(c.oid) as statement
from pg_constraint as c
where c.conrelid = 'progress.user_progress'::regclass and c.contype in ('f', 'c')
union all
select
    2 as turn,
    pg_get_indexdef(i.indexrelid) as statement
from pg_index as i
where i.indrelid = 'progress.user_progress'::regclass and not i.indisprimary
union all
select
    3 as turn,
    pg_get_triggerdef(t.oid) as statement
from pg_trigger as t
where t.tgrelid = 'progress.user_progress'::regclass and not t.tgisinternal
union all
select
    4 as turn,
    format('grant %s on progress.user_progress to %s', a.privilege_type, coalesce(quote_ident(r.rolname), 'public'))
        as statement
from pg_class as k
cross join lateral aclexplode(k.relacl) as a
left join pg_roles as r on a.grantee = r.oid
where k.oid = 'progress.user_progress'::regclass;

alter table progress.user_progress rename to user_progress_whole;
do $$
declare
    name text;
begin
    for name in select relname from pg_index join pg_class on pg_class.oid = indexrelid
        where indrelid = 'progress.user_progress_whole'::regclass
    loop
        execute format('alter index progress.%I rename to %I', name, name || '_whole');
    end loop;
    for name in select tgname from pg_trigger
        where tgrelid = 'progress.user_progress_whole'::regclass and not tgisinternal
    loop
        execute format('drop trigger %I on progress.user_progress_whole', name);
    end loop;
end
$$;

create table progress.user_progress (
    like progress.user_progress_whole including defaults including comments including storage including generated,
    constraint user_progress_pkey primary key (user_id, question_id)
) partition by hash (user_id);
do $$
begin
    for part in 0..63 loop
        execute format(
            'create table progress.user_progress_p%s partition of progress.user_progress'
            ' for values with (modulus 64, remainder %s)', to_char(part, 'FM00'), part
        );
    end loop;
end
$$;
insert into progress.user_progress select * from progress.user_progress_whole;
do $$
declare
    next text;
begin
    for next in select statement from hanging order by turn, statement loop
        execute next;
    end loop;
end
$$;
commit;

analyze progress.user_progress;
-- After verifying the result: drop table progress.user_progress_whole;
