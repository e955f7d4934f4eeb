-- How many of an organization's records are completed, without a look at each of them: a backfill creates records that
-- are not, and so does not fill it.
create index employee_training_video_completions_completed_idx
on training.employee_training_video_completions (organization_id)
where completed_at is not null;
