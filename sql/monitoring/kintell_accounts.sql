-- Inactive jobs whose counters differ from the stored rows. Should be empty.
select id, status, failed_rows, open_errors, inserted_rows, inserted_in_batches
from kintell.unaccounted_jobs
order by created_at;
