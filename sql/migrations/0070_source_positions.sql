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
