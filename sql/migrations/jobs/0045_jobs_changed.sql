-- Whoever may log in may listen to jobs_changed, and what a job says of its work is its owner's alone: the channel tells
-- that there is something new, the table what.

-- Progress of one attempt. Returns the job's status: `processing` where it was accepted, `cancelled` where the job
-- was cancelled; null where the attempt does not hold the job any more.
create or replace function jobs.report_progress(
    job_id uuid, attempt integer, percentage integer, message text
) returns text
language plpgsql as $$
begin
    update jobs.background_jobs as b
    set progress_percentage = greatest(0, least(100, percentage)),
        progress_message = left(message, 1000),
        heartbeat_at = clock_timestamp(),
        updated_at = clock_timestamp()
    where b.id = report_progress.job_id and b.attempt = report_progress.attempt and b.status = 'processing'
        and b.heartbeat_at >= jobs.oldest_heartbeat();
    if found then
        perform pg_notify('jobs_changed', json_build_object(
            'id', job_id, 'status', 'processing', 'progress', percentage
        )::text);
        return 'processing';
    end if;
    return (
        select b.status from jobs.background_jobs as b
        where b.id = report_progress.job_id and b.attempt = report_progress.attempt and b.status = 'cancelled'
    );
end
$$;
