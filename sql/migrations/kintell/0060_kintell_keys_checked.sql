-- The keys of imported sessions are checked as anybody's are: nothing has to know that users stay.

drop trigger note_user_removal on kintell.users;
drop trigger "A_note_user_id_change" on kintell.users;
drop table kintell.user_removals;
drop function kintell.note_user_removal();
drop function kintell.keep_user_removals();
alter table kintell.kintell_sessions enable trigger mark_summary_days_insert;

-- All rows of an import have one job, which is looked up once a statement, not once a row.
alter table kintell.kintell_sessions drop constraint kintell_sessions_backfill_job_id_fkey;

create function kintell.check_session_jobs() returns trigger
language plpgsql set search_path = pg_catalog, pg_temp as $$
declare
    job uuid;
begin
    for job in
        select distinct n.backfill_job_id from new_rows as n where n.backfill_job_id is not null
    loop
        perform from kintell.backfill_jobs as j where j.id = job for key share;
        if not found then
            raise exception 'there is no import job %', job using errcode = 'foreign_key_violation';
        end if;
    end loop;
    return null;
end
$$;
create trigger check_session_jobs_insert after insert on kintell.kintell_sessions
referencing new table as new_rows for each statement execute function kintell.check_session_jobs();
create trigger check_session_jobs_update after update on kintell.kintell_sessions
referencing new table as new_rows for each statement execute function kintell.check_session_jobs();

-- Who removes a job has its row locked by now, and so sees the sessions of whoever held it.
create function kintell.keep_job_of_sessions() returns trigger
language plpgsql set search_path = pg_catalog, pg_temp as $$
begin
    if exists (select from kintell.kintell_sessions as s where s.backfill_job_id = old.id) then
        raise exception 'import job % has sessions', old.id
            using errcode = 'foreign_key_violation', hint = 'Roll it back first.';
    end if;
    return case tg_op when 'DELETE' then old else new end;
end
$$;
create trigger keep_job_of_sessions_delete before delete on kintell.backfill_jobs
for each row execute function kintell.keep_job_of_sessions();
create trigger keep_job_of_sessions_update before update of id on kintell.backfill_jobs
for each row when (old.id is distinct from new.id) execute function kintell.keep_job_of_sessions();
