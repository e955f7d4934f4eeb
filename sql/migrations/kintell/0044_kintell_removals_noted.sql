-- Removals of users are noted whatever way they come about.

-- Another trigger may give a row a new id that the statement did not set. Named to run before the foreign keys' own
-- triggers: what it waits for, they see.
create trigger "A_note_user_id_change" after update on kintell.users
for each row when (old.id is distinct from new.id) execute function kintell.note_user_removal();
alter table kintell.users enable always trigger "A_note_user_id_change";

-- What is counted is never taken away: as many notes as before would look as if no user had gone.
create function kintell.keep_user_removals() returns trigger
language plpgsql set search_path = pg_catalog, pg_temp as $$
begin
    raise exception 'kintell.user_removals is only added to; imports count its rows';
end
$$;
create trigger keep_user_removals before update or delete or truncate on kintell.user_removals
for each statement execute function kintell.keep_user_removals();
alter table kintell.user_removals enable always trigger keep_user_removals;

-- A day's text once, instead of once for each of its sessions.
create or replace function kintell.mark_summary_days() returns trigger
language plpgsql as $$
begin
    if tg_op <> 'INSERT' then
        perform backfill.mark_stale('kintell/daily_session_summary', array(
            select day::text from (select distinct (scheduled_at at time zone 'UTC')::date as day from old_rows) as d
        ));
    end if;
    if tg_op <> 'DELETE' then
        perform backfill.mark_stale('kintell/daily_session_summary', array(
            select day::text from (select distinct (scheduled_at at time zone 'UTC')::date as day from new_rows) as d
        ));
    end if;
    return null;
end
$$;
