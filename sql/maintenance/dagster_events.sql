-- Remove what runs have logged more than 90 days ago: steps, engine events, log lines, of runs that have ended. An asset's
-- history stays, whatever its age: Dagster knows from it which partitions there are. So do the runs themselves.
-- Ten thousand rows a transaction, so that nobody waits. Run as backfills_writer or the owner, not within a transaction.
do $$
declare
    before constant timestamp := (now() at time zone 'UTC') - interval '90 days';
    position bigint := 0;
    reached bigint;
begin
    loop
        -- The log in the order of its ids, which is that of time but for a few.
        select max(page.id) into reached
        from (
            select l.id from dagster.event_logs as l
            where l.id > position and l.timestamp < before
            order by l.id
            limit 10000
        ) as page;
        exit when reached is null;
        delete from dagster.event_logs as l
        using dagster.runs as r
        where l.id > position and l.id <= reached
            and l.timestamp < before
            and l.asset_key is null
            and r.run_id = l.run_id
            and r.status in ('SUCCESS', 'FAILURE', 'CANCELED');
        commit;
        position := reached;
    end loop;
end
$$;
