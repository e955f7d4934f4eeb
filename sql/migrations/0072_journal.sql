-- What stood before: for each row that a run changed its key, its content then, and what the run left of it. It is
-- written by the statement that changes the row, kept for a month, and what `backfills undo` goes by.

-- `journal_id` is null where nothing was journaled; `journal` says of which table its entries are, and how to read them.
alter table backfill.batches
add column journal_id bigint,
add column journal jsonb;
create unique index batches_journal_id_idx on backfill.batches (journal_id) where journal_id is not null;
create index batches_asset_idx on backfill.batches (asset, committed_at);

-- `before` is the row as text of its own type, null where there was none. `after` is a hash of what the run left, null
-- where it left none. `key` is the text of the columns that `batches.journal` names.
create table backfill.journal (
    id bigint generated always as identity primary key,
    journal_id bigint not null,
    partition text not null,
    key text[] not null,
    before text,
    after bigint
);
create index journal_journal_id_idx on backfill.journal (journal_id);

-- The run that this one undoes.
alter table backfill.runs add column undoes text;

-- Partitions that were undone: automation leaves them alone until their source changes, or somebody asks for them.
create table backfill.undone (
    asset text not null,
    partition text not null,
    run_id text not null,
    undone_at timestamptz not null default clock_timestamp(),
    primary key (asset, partition)
);

-- A partition that is written is undone no more.
create or replace function backfill.clear_stale(asset text, partitions text[], snapshot pg_snapshot) returns bigint
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

comment on table backfill.journal is
'What stood before: one row a row that a batch changed, with what the batch left of it as a hash.';
comment on table backfill.undone is
'Partitions whose last run was undone, which automation leaves alone until their source changes.';
