-- Queries of the import pages. Lists use keyset pagination: a page starts after the last row of the previous one.

-- name: newest_imports
select
    j.id, j.status, j.activity, j.file_name, j.file_size, j.total_rows, j.processed_rows, j.inserted_rows,
    j.updated_rows, j.skipped_rows, j.failed_rows, j.created_at, j.completed_at
from kintell.backfill_jobs as j
where
    :after::uuid is null
    or (j.created_at, j.id) < (select a.created_at, a.id from kintell.backfill_jobs as a where a.id = :after::uuid)
order by j.created_at desc, j.id desc
limit :most;

-- name: now$
select clock_timestamp();
