-- What each table and view holds, for whoever meets it in psql or in docs/reference/tables.md.

comment on schema backfill is
'The engine''s own: what each run did, what failed, what went stale.';
comment on schema jobs is
'Domain 4: the queue of background jobs.';
comment on schema kintell is
'Domain 3: historical sessions imported from CSV, with their events.';
comment on schema progress is
'Domain 2: statistics of students and cohorts.';
comment on schema scoring is
'Domain 5: commitment, churn risk and coach actions by day.';
comment on schema training is
'Domain 1: completion records of members and training videos.';
comment on table backfill.batches is
'One row a committed batch and asset, written by the transaction that wrote the batch''s rows.';
comment on table backfill.failures is
'The failure ledger: one open row a unit that could not be written, resolved by its next success.';
comment on table backfill.runs is
'One row a step of a run that wrote through the engine, with its outcome.';
comment on table backfill.stale_marks is
'One row a change that no computation has seen yet, and the partition that it concerns.';
comment on view backfill.run_progress is
'How far each run is, how fast, and how long it will take.';
comment on view backfill.stale is
'The stale partitions: since when, and by how many changes.';
comment on table jobs.background_jobs is
'One row a background job: its state, input, output, errors, owner and retries.';
comment on table jobs.job_queue is
'What is claimed from: one narrow row a pending job.';
comment on table jobs.job_types is
'The types of jobs that may be enqueued, with their limits and the inputs that they ask for.';
comment on table jobs.queue_settings is
'What operators may turn: the lease, the back-off of retries, what counts as stuck. One row.';
comment on view jobs.active_jobs is
'Jobs at work and due, the ones at work first.';
comment on view jobs.average_durations is
'Seconds from start to end of the jobs that completed within 30 days, by type.';
comment on view jobs.overview is
'The domain in one row, for backfills status.';
comment on view jobs.queue_metrics is
'The queue by type: depth, age, what ended in the last hour, mean duration over the last day.';
comment on view jobs.repeatedly_failing_jobs is
'Jobs that failed for good or are on their second retry or a later one, with the last error.';
comment on view jobs.stuck_jobs is
'Jobs that wait for too long though they are due, or are at work past their lease.';
comment on table kintell.backfill_job_batches is
'One row a committed batch of an import: which rows and bytes of the file, and what became of them.';
comment on table kintell.backfill_job_updates is
'What a session was before an import rewrote it, for the rollback.';
comment on table kintell.backfill_jobs is
'One row an import: the file, the account, the checkpoint, the claim, the undoing.';
comment on table kintell.backfill_row_errors is
'Rejected rows as they stood in the file. Open until a replay imports them.';
comment on table kintell.daily_session_summary is
'One row a day (UTC) that has sessions. The asset of the same name.';
comment on table kintell.event_outbox is
'Events in their order, until they are stored in JetStream.';
comment on table kintell.event_publisher is
'The publisher''s own mark: how far events may have left, and its last error. One row.';
comment on table kintell.kintell_sessions is
'Sessions, one row each, from applications and from imports.';
comment on table kintell.users is
'The people that sessions name, by e-mail address.';
comment on view kintell.backfill_daily_summary is
'Imports by the UTC day of their registration.';
comment on view kintell.backfill_job_history is
'Every import: how far, how fast, how many rows rejected, how long.';
comment on view kintell.event_payloads is
'Events in the form in which they are sent.';
comment on view kintell.overview is
'The domain in one row, for backfills status.';
comment on view kintell.sessions_per_date is
'Sessions by UTC day, counted at the moment of asking.';
comment on table progress.classes is
'Source: the classes of a cohort.';
comment on table progress.cohort_stats is
'One row a cohort: students, questions and the mean of their completion. The asset of the same name.';
comment on table progress.cohorts is
'Source: cohorts, the partitions of this domain.';
comment on table progress.modules is
'Source: the modules of a class.';
comment on table progress.questions is
'Source: the questions of a module.';
comment on table progress.schools is
'Source: schools.';
comment on table progress.user_progress is
'Source: one row an answer of a student to a question.';
comment on table progress.user_progress_stats is
'One row an active student: what it has answered and mastered. The asset of the same name.';
comment on table progress.users is
'Source: students; one with deleted_at has left.';
comment on view progress.cohort_dashboard is
'A cohort for the dashboard: one lookup by key.';
comment on view progress.cohort_status is
'Every cohort: whether statistics are missing or stale, and since when.';
comment on view progress.overview is
'The domain in one row, for backfills status.';
comment on view progress.student_dashboard is
'The students of a cohort for the dashboard: one range of an index.';
comment on table scoring.chain_days is
'Where the chain stands: one row an asset and day, written by the run that works the day.';
comment on table scoring.churn_risk_scores is
'One row a day and member: risk of leaving, its level and reasons. The asset of the same name.';
comment on table scoring.coach_actions is
'One row a day, member and coach: what to do, how urgent and why. The asset of the same name.';
comment on table scoring.coaches is
'Source: coaches of a gym.';
comment on table scoring.commitment_scores is
'One row a day and member: the score, its factors and the weights used. The asset of the same name.';
comment on table scoring.gyms is
'Source: gyms.';
comment on table scoring.member_coaches is
'Source: which coaches a member has.';
comment on table scoring.members is
'Source: members of a gym, with the visits that are expected of them.';
comment on table scoring.visits is
'Source: one row a visit.';
comment on view scoring.overview is
'The domain in one row, for backfills status: the days of the last week.';
comment on table training.employee_training_video_completions is
'One row a member and training video. The asset of the same name.';
comment on table training.members is
'Source: members of an organization.';
comment on table training.organizations is
'Source: organizations, the partitions of this domain.';
comment on table training.training_videos is
'Source: training videos.';
comment on view training.organization_status is
'Every organization: which records are missing, and since when its progress is stale.';
comment on view training.overview is
'The domain in one row, for backfills status.';
comment on table kintell.backfill_job_claims is
'Ids of an import''s file that were in the database before it: skipped, updated or refused.';
comment on table kintell.user_removals is
'One row a removal of users, noted first, so that an import can tell that its users stay.';
