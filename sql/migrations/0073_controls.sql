-- What operators may turn of a backfill while it works. Runs read it between two batches.
create table backfill.controls (
    backfill text primary key,
    assets text[] not null,
    paused boolean not null default false,
    rest_seconds double precision check (rest_seconds >= 0),
    rows_per_second double precision check (rows_per_second > 0),
    window_start time,
    window_end time,
    zone text not null default 'UTC',
    changed_at timestamptz not null default clock_timestamp(),
    check ((window_start is null) = (window_end is null)),
    check (window_start <> window_end)
);

comment on table backfill.controls is
'What operators have set of a backfill: whether it is paused, how fast it may go, and at what hours.';
