-- An import fills six indexes of the sessions, and they cost it more than the rows do.

-- A job's rows lie together: a summary of each stretch of the table finds them as fast, and costs next to nothing to
-- keep.
drop index kintell.kintell_sessions_backfill_job_id_idx;
create index kintell_sessions_backfill_job_id_idx on kintell.kintell_sessions
using brin (backfill_job_id uuid_minmax_multi_ops) with (autosummarize = on);

-- Hardly two sessions begin at the same moment: looking for equal ones each time a page is full is in vain.
drop index kintell.kintell_sessions_scheduled_at_idx;
create index kintell_sessions_scheduled_at_idx on kintell.kintell_sessions (scheduled_at)
with (deduplicate_items = off);

-- Ids are compared byte by byte: many times faster than by the rules of a language, and an import can tell from the
-- first and the last id of a batch that none of them is there.
alter table kintell.kintell_sessions alter column external_session_id type text collate "C";
