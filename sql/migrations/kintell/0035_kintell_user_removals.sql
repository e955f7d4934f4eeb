-- An import knows the users of its sessions. That none of them has gone since it read them, and none goes before its
-- batch is committed, can be told for a whole batch at once: whoever removes users notes it here first. The note takes
-- the lock of a writer, which any number of removals share; a batch takes the lock of a reader, which any number of
-- batches share; and each of them keeps the other out until its transaction ends.
create table kintell.user_removals (
    id bigint generated always as identity primary key,
    noted_at timestamptz not null default clock_timestamp()
);

-- As its owner: who may remove users need not know of this table.
create function kintell.note_user_removal() returns trigger
language plpgsql security definer set search_path = '' as $$
begin
    insert into kintell.user_removals default values;
    return null;
end
$$;
create trigger note_user_removal before delete or truncate or update of id on kintell.users
for each statement execute function kintell.note_user_removal();
alter table kintell.users enable always trigger note_user_removal;

-- A batch whose users are known to stay is written without the check of each row. This trigger must run all the same.
alter table kintell.kintell_sessions enable always trigger mark_summary_days_insert;
