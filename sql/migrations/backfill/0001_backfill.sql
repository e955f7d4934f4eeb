-- The engine's own schema, shared by all domains. Each domain has a schema of its own.

comment on schema backfill is
'The engine''s records: runs, batches, failures, stale marks and the journal.';

create table backfill.runs (
    run_id text not null,
    step text not null default '',
    root_run_id text not null,
    assets text[] not null,
    partitions integer not null check (partitions >= 0),
    units bigint check (units >= 0),
    started_at timestamptz not null default clock_timestamp(),
    finished_at timestamptz,
    outcome text not null default 'running' check (outcome in ('running', 'succeeded', 'failed', 'interrupted')),
    undoes text,  -- the run that this run undoes
    started_by text not null default '',  -- a user, schedule or sensor
    primary key (run_id, step),
    check ((outcome = 'running') = (finished_at is null))
);
comment on table backfill.runs is
'Runs of the engine, one row per step of a Dagster run, with its outcome.';
create index runs_root_run_id_idx on backfill.runs (root_run_id);
create index runs_started_at_idx on backfill.runs (started_at);

-- A batch covers whole partitions or, if `units_upto` is set, a slice of one partition that ends with this unit.
create table backfill.batches (
    batch_id uuid not null,
    asset text not null,
    run_id text not null,
    step text not null default '',
    partitions text[] not null,
    units_upto text,
    snapshot pg_snapshot not null,
    units bigint not null default 0,
    rows_inserted bigint not null default 0,
    rows_updated bigint not null default 0,
    rows_unchanged bigint not null default 0,
    rows_deleted bigint not null default 0,
    failures integer not null default 0,
    seconds double precision not null,
    committed_at timestamptz not null default clock_timestamp(),
    journal_id bigint,  -- null if nothing was journaled
    journal jsonb,  -- the table that the journal entries belong to: its columns and its key
    primary key (batch_id, asset),
    foreign key (run_id, step) references backfill.runs on delete cascade
);
create unique index batches_journal_id_idx on backfill.batches (journal_id) where journal_id is not null;
create index batches_asset_idx on backfill.batches (asset, committed_at);
comment on table backfill.batches is
'Committed batches, one row per batch and asset, inserted in the transaction that wrote the batch''s rows.';
create index batches_run_id_idx on backfill.batches (run_id, step);

-- `unit` is null if the whole partition failed.
create table backfill.failures (
    id bigint generated always as identity primary key,
    run_id text not null,
    asset text not null,
    partition text,
    unit text,
    error_class text not null,
    sqlstate text,
    message text not null,
    first_seen timestamptz not null default clock_timestamp(),
    last_seen timestamptz not null default clock_timestamp(),
    attempts integer not null default 1 check (attempts > 0),
    resolved_at timestamptz
);
comment on table backfill.failures is
'The failure ledger: one open row per unit that could not be written. Its next success resolves the row.';
create unique index failures_open_idx on backfill.failures (asset, partition, unit) nulls not distinct
where resolved_at is null;
create index failures_run_id_idx on backfill.failures (run_id);

-- Inserted in the transaction that made the change, and deleted by a recomputation that saw it. Marks are never
-- updated, so marking never waits for a lock.
create table backfill.stale_marks (
    asset text not null,
    partition text not null,
    marked_at timestamptz not null default clock_timestamp(),
    xid xid8 not null default pg_current_xact_id()
);
comment on table backfill.stale_marks is
'Changes that no computation has seen yet, one row per change and partition.';
create index stale_marks_partition_idx on backfill.stale_marks (asset, partition);

create view backfill.stale as
select
    asset,
    partition,
    min(marked_at) as since,
    count(*) as changes
from backfill.stale_marks
group by asset, partition;
comment on view backfill.stale is
'Stale partitions, with the time of the oldest change and the number of changes.';

create function backfill.mark_stale(asset text, partitions text[]) returns void
language sql as $$
    insert into backfill.stale_marks (asset, partition)
    select distinct mark_stale.asset, p
    from unnest(mark_stale.partitions) as p
    where p is not null
$$;

-- Creates a statement-level trigger for each event. The handler runs once per statement and reads the changed rows from
-- the transition tables `old_rows` and `new_rows`.
create function backfill.add_triggers(source regclass, handler text, events text[], variadic arguments text[] default '{}')
returns void
language plpgsql as $$
declare
    event text;
begin
    foreach event in array events loop
        execute format(
            'create trigger %I after %s on %s %s for each statement execute function %s(%s)',
            split_part(handler, '.', 2) || '_' || event, event, source,
            case event
                when 'insert' then 'referencing new table as new_rows'
                when 'update' then 'referencing old table as old_rows new table as new_rows'
                when 'delete' then 'referencing old table as old_rows'
                else ''
            end,
            handler, (select string_agg(quote_literal(a), ', ') from unnest(arguments) as a)
        );
    end loop;
end
$$;

-- `backfills undo` restores rows from it. The statement that changes rows also inserts their entries, which are kept
-- for a month. One row of this table holds the entries of many rows in arrays, so that an entry of an inserted row
-- takes about fifteen bytes.
create table backfill.journal (
    id bigint generated always as identity primary key,
    journal_id bigint not null,
    partition text not null,
    keys text[] not null,
    befores text[] not null,
    afters bigint[] not null
);
create index journal_journal_id_idx on backfill.journal (journal_id);
comment on table backfill.journal is
'Previous versions of the rows that batches changed, for undo. Each row holds up to four megabytes of entries.';

-- `before` is the row as text that can be cast to its row type, null for an inserted row. `after` is a hash of the row
-- that the run left, null for a deleted row. `key` has the columns that `batches.journal` names, as text.
-- generate_subscripts is there for the planner, which expects a thousand rows of it; for unnest alone it expects ten
-- and chooses nested loops.
create view backfill.journal_entries as
select
    (j.id << 20) + e.n as id,
    j.id as chunk,
    j.journal_id,
    j.partition,
    e.key::text[] as key,
    e.before,
    e.after
from backfill.journal as j
cross join lateral (
    select
        unnest(j.keys) as key,
        unnest(j.befores) as before,
        unnest(j.afters) as after,
        generate_subscripts(j.keys, 1) as n
) as e;
comment on view backfill.journal_entries is
'Journal entries, one row per changed row, in the order of the changes.';

create table backfill.undone (
    asset text not null,
    partition text not null,
    run_id text not null,
    undone_at timestamptz not null default clock_timestamp(),
    primary key (asset, partition)
);
comment on table backfill.undone is
'Partitions whose last run was undone. Automation skips them until their source changes.';

-- Deletes the marks of changes that a computation with this snapshot has seen. Marks of later transactions stay. Marks
-- of the current transaction are deleted too: it calls this function before it computes. A mark with a transaction ID
-- in this server's future comes from a restored dump and counts as seen. Also deletes the undo records of the
-- partitions, because they are written again.
create function backfill.clear_stale(asset text, partitions text[], snapshot pg_snapshot) returns bigint
language sql as $$
    delete from backfill.undone as u
    where u.asset = clear_stale.asset and u.partition = any(clear_stale.partitions);
    with cleared as (
        delete from backfill.stale_marks as m
        where m.asset = clear_stale.asset
            and m.partition = any(clear_stale.partitions)
            and (
                pg_visible_in_snapshot(m.xid, clear_stale.snapshot)
                or m.xid = pg_current_xact_id()
                or m.xid >= pg_snapshot_xmax(pg_current_snapshot())
            )
        returning 1
    )
    select count(*) from cleared
$$;

-- Allows one writer per partition, until the end of the transaction. An asset's partitions share 512 advisory locks, so
-- that a large batch holds a bounded number of locks. Locking in order prevents deadlocks between batches.
create function backfill.lock_partitions(asset text, partitions text[]) returns void
language plpgsql as $$
declare
    slot integer;
begin
    for slot in select distinct hashtext(p) & 511 as s from unnest(partitions) as p order by s loop
        perform pg_advisory_xact_lock(hashtext(asset), slot);
    end loop;
end
$$;

-- Begins a batch: locks its partitions for each asset, and then takes and returns a snapshot.
create function backfill.begin_batch(assets text[], partitions text[]) returns pg_snapshot
language plpgsql as $$
declare
    asset text;
begin
    for asset in select distinct a from unnest(assets) as a order by a loop
        perform backfill.lock_partitions(asset, partitions);
    end loop;
    return pg_current_snapshot();
end
$$;

create view backfill.run_progress as
select
    r.run_id,
    r.step,
    r.assets,
    r.outcome,
    r.started_at,
    r.finished_at,
    r.partitions as partitions_total,
    coalesce(b.partitions, 0) as partitions_done,
    r.units as units_total,
    coalesce(b.units, 0) as units_done,
    coalesce(b.rows_written, 0) as rows_written,
    coalesce(b.failures, 0) as failures,
    coalesce(b.units / nullif(extract(epoch from b.last_at - r.started_at), 0), 0) as units_per_second,
    case when r.outcome = 'running' and b.units > 0 and r.units is not null
            then (b.last_at - r.started_at) * (greatest(r.units - b.units, 0)::double precision / b.units)
    end as time_left
from backfill.runs as r
left join lateral (
    select
        sum(cardinality(bb.partitions)) filter (where bb.units_upto is null and bb.asset = r.assets[1]) as partitions,
        sum(bb.units) filter (where bb.asset = r.assets[1]) as units,
        sum(bb.rows_inserted + bb.rows_updated + bb.rows_deleted) as rows_written,
        sum(bb.failures) as failures,
        max(bb.committed_at) as last_at
    from backfill.batches as bb
    where bb.run_id = r.run_id and bb.step = r.step
) as b on true;
comment on view backfill.run_progress is
'Progress of each run: partitions and units done, rows written, speed and remaining time.';

-- Runs read it between two batches.
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
'Operators'' controls for each backfill: pause, rest between batches, rate limit and write window.';

-- For backfills without triggers on their sources. All rows of transactions before `position` have been seen.
create table backfill.source_positions (
    backfill text not null,
    source text not null,
    position xid8 not null,
    polled_at timestamptz not null default clock_timestamp(),
    primary key (backfill, source)
);
comment on table backfill.source_positions is
'Per backfill and source table: the oldest transaction that the last poll may not have seen. Written by the refresh
sensor of backfills with `stale_by: polling`.';

-- A request inserts one row when it is accepted or refused, and another when it ends. Nobody can change a row, not even
-- the table's owner. Writers can't set `at` and `login` (`sql/roles.sql`).
create table backfill.audit (
    id bigint generated always as identity primary key,
    at timestamptz not null default clock_timestamp(),
    login text not null default session_user,
    request uuid not null,
    who text not null,
    action text not null,
    domains text[],  -- null: unknown, counts as all
    target text not null,
    outcome text not null check (outcome in ('started', 'done', 'failed', 'refused')),
    runs text[] not null default '{}',
    detail text not null default ''
);
create index audit_request_idx on backfill.audit (request);
create index audit_at_idx on backfill.audit (at);
comment on table backfill.audit is
'The audit log: who launched, undid, paused or changed what, and who was refused. Append-only.';
comment on column backfill.audit.request is 'The ID that all rows of one request share.';
comment on column backfill.audit.who is
'The user from the proxy, or the operating system''s user and host: alice@host.';
comment on column backfill.audit.action is 'The Dagster GraphQL mutation, or the command.';
comment on column backfill.audit.runs is 'IDs of the runs and backfills that the request started.';

create function backfill.refuse_change() returns trigger
language plpgsql set search_path = pg_catalog, pg_temp as $$
begin
    raise exception '% of %.% is not allowed: the table is append-only', tg_op, tg_table_schema, tg_table_name
        using errcode = 'insufficient_privilege';
end
$$;
create trigger audit_is_only_added_to before update or delete or truncate on backfill.audit
for each statement execute function backfill.refuse_change();
