-- The engine's own tables: what each run did, what failed, what went stale.
-- One schema a domain; this one belongs to the engine and is shared by all of them.

comment on schema backfill is
'The engine''s own: what each run did, what failed, what went stale.';

-- One row a step of a Dagster run that wrote through the engine.
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
    undoes text,  -- the run that this one undoes
    started_by text not null default '',  -- a person, or the schedule or sensor
    primary key (run_id, step),
    check ((outcome = 'running') = (finished_at is null))
);
comment on table backfill.runs is
'One row a step of a run that wrote through the engine, with its outcome.';
create index runs_root_run_id_idx on backfill.runs (root_run_id);
create index runs_started_at_idx on backfill.runs (started_at);

-- One row a committed batch and asset, written by the transaction that wrote the batch's rows.
-- A batch holds whole partitions, or (`units_upto` set) a slice of one partition up to that unit.
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
    journal_id bigint,  -- null where nothing was journaled
    journal jsonb,  -- of which table the journal's entries are, and how to read them
    primary key (batch_id, asset),
    foreign key (run_id, step) references backfill.runs on delete cascade
);
create unique index batches_journal_id_idx on backfill.batches (journal_id) where journal_id is not null;
create index batches_asset_idx on backfill.batches (asset, committed_at);
comment on table backfill.batches is
'One row a committed batch and asset, written by the transaction that wrote the batch''s rows.';
create index batches_run_id_idx on backfill.batches (run_id, step);

-- The failure ledger: one open row a failing unit, resolved by the unit's next success.
-- `unit` is null where the partition itself failed.
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
'The failure ledger: one open row a unit that could not be written, resolved by its next success.';
create unique index failures_open_idx on backfill.failures (asset, partition, unit) nulls not distinct
where resolved_at is null;
create index failures_run_id_idx on backfill.failures (run_id);

-- Staleness: one row a change and partition, written in the transaction that made the change. Rows are only
-- ever added by the change and removed by a recomputation that saw it, so that marking never waits for a lock.
create table backfill.stale_marks (
    asset text not null,
    partition text not null,
    marked_at timestamptz not null default clock_timestamp(),
    xid xid8 not null default pg_current_xact_id()
);
comment on table backfill.stale_marks is
'One row a change that no computation has seen yet, and the partition that it concerns.';
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
'The stale partitions: since when, and by how many changes.';

create function backfill.mark_stale(asset text, partitions text[]) returns void
language sql as $$
    insert into backfill.stale_marks (asset, partition)
    select distinct mark_stale.asset, p
    from unnest(mark_stale.partitions) as p
    where p is not null
$$;

-- Statement-level triggers on a table, one for each of these events, that call a function once with all rows that a
-- statement changed: `old_rows`, `new_rows`, or both.
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

-- What stood before: for each row that a run changed its key, its content then, and what the run left of it. It is
-- written by the statement that changes the rows, kept for a month, and what `backfills undo` goes by.
-- A row of this table has the entries of many rows side by side, so that an inserted row costs some fifteen bytes.
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
'What stood before: the rows of a partition that a batch changed, up to four megabytes of them a row.';

-- `before` is the row as text of its own type, null where there was none. `after` is a hash of what the run left, null
-- where it left none. `key` is the text of the columns that `batches.journal` names. The planner takes an array that is
-- unnested for ten rows, and joins by loops; subscripts it takes for a thousand.
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
'The journal, one row a row that a batch changed, in the order in which they were changed.';

-- Partitions that were undone: automation leaves them alone until their source changes, or somebody asks for them.
create table backfill.undone (
    asset text not null,
    partition text not null,
    run_id text not null,
    undone_at timestamptz not null default clock_timestamp(),
    primary key (asset, partition)
);
comment on table backfill.undone is
'Partitions whose last run was undone, which automation leaves alone until their source changes.';

-- Marks that a computation with this snapshot took into account. A mark from a later transaction stays. Those of
-- this very transaction are seen by what it computes from now on: it clears before it computes. A mark whose
-- transaction lies in this server's future came with a restored dump, and counts as seen. A partition that is written
-- is undone no more.
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

-- One writer a partition at a time: held to the end of the transaction. Partitions share 512 slots an asset, so
-- that a batch of any width holds a bounded number of locks; taken in order, so that two batches can't deadlock.
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

-- How a batch begins: the locks of its partitions, for each asset that it writes, and then the snapshot from which
-- on it sees everything. Returns the snapshot.
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

-- What a run has done so far, how fast, and how long it will take.
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
'How far each run is, how fast, and how long it will take.';

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

-- How far the sources of declared backfills have been looked through, where no trigger tells of their changes: all rows
-- of transactions before `position` are known.
create table backfill.source_positions (
    backfill text not null,
    source text not null,
    position xid8 not null,
    looked_at timestamptz not null default clock_timestamp(),
    primary key (backfill, source)
);
comment on table backfill.source_positions is
'By backfill and source table: the oldest transaction that the last look may not have seen. Written by the refresh
sensor of backfills that are declared with `stale_by: look`.';

-- Who asked for what: one row when it is let in or refused, another when it has ended. Nobody changes a row, its owner
-- neither; when it was written, and by which login, is not the writer's to say (`sql/roles.sql`).
create table backfill.audit (
    id bigint generated always as identity primary key,
    at timestamptz not null default clock_timestamp(),
    login text not null default session_user,
    request uuid not null,
    who text not null,
    action text not null,
    domains text[],  -- null: not known, and so all
    target text not null,
    outcome text not null check (outcome in ('started', 'done', 'failed', 'refused')),
    runs text[] not null default '{}',
    detail text not null default ''
);
create index audit_request_idx on backfill.audit (request);
create index audit_at_idx on backfill.audit (at);
comment on table backfill.audit is
'Who launched, undid, paused or changed what, and who was refused it. Rows are added and never changed.';
comment on column backfill.audit.request is 'The same for all rows of one request.';
comment on column backfill.audit.who is
'The user that the proxy named, or the system''s user and host: alice@host.';
comment on column backfill.audit.action is 'The mutation of Dagster''s, or the command.';
comment on column backfill.audit.runs is 'Ids of the runs and backfills that came of it.';

create function backfill.refuse_change() returns trigger
language plpgsql set search_path = pg_catalog, pg_temp as $$
begin
    raise exception '% of %.%: rows are only ever added', tg_op, tg_table_schema, tg_table_name
        using errcode = 'insufficient_privilege';
end
$$;
create trigger audit_is_only_added_to before update or delete or truncate on backfill.audit
for each statement execute function backfill.refuse_change();
