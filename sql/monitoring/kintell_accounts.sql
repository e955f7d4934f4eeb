-- Jobs at rest whose counters differ from the rows that are there. Should be empty.
select j.id, j.status, j.failed_rows, e.open_errors, j.inserted_rows, b.inserted_in_batches
from kintell.backfill_jobs as j
cross join lateral (
    select count(*) as open_errors from kintell.backfill_row_errors as r where r.job_id = j.id and r.resolved_at is null
) as e
cross join lateral (
    select coalesce(sum(bb.inserted_rows), 0) as inserted_in_batches
    from kintell.backfill_job_batches as bb
    where bb.job_id = j.id
) as b
where j.activity is null and (j.failed_rows <> e.open_errors or j.inserted_rows <> b.inserted_in_batches)
order by j.created_at;
