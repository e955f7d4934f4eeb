-- Every function that runs with its owner's rights names pg_temp last: left out, it would be searched first.
do $$
begin
    alter function kintell.note_user_removal() set search_path = pg_catalog, pg_temp;
end
$$;
