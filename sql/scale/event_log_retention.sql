-- Dagster's event log in its own schema, thinned: the step and engine events of runs that ended well long ago go, what
-- happened to assets stays, since the states of partitions are read from it. Batches of 100,000, so that nobody waits.
--
--     psql "$DATABASE_URL" -v ON_ERROR_STOP=1 -f sql/scale/event_log_retention.sql   (daily, from cron)
set lock_timeout = '5s';
do $$
declare
    removed bigint;
begin
    loop
        delete from dagster.event_logs
        where id in (
            select e.id
            from dagster.event_logs as e
            inner join dagster.runs as r on e.run_id = r.run_id
            where r.status = 'SUCCESS'
                and r.update_timestamp < (now() at time zone 'UTC') - interval '30 days'
                and e.asset_key is null
                and coalesce(e.dagster_event_type, '') not like 'ASSET%'
                and coalesce(e.dagster_event_type, '') not in ('PIPELINE_START', 'PIPELINE_SUCCESS')
            limit 100000
        );
        get diagnostics removed = row_count;
        exit when removed = 0;
        commit;
    end loop;
end
$$;
