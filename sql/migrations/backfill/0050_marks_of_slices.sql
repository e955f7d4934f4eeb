-- Every slice of a partition has the snapshot that its units were first listed by: which was first does not matter.
alter table backfill.batches drop column first_slice;

-- Marks that a computation with this snapshot took into account. A mark from a later transaction stays. Those of this
-- very transaction are seen by what it computes from now on: it clears before it computes. A mark whose transaction
-- lies in this server's future came with a restored dump, and counts as seen.
create or replace function backfill.clear_stale(asset text, partitions text[], snapshot pg_snapshot) returns bigint
language sql as $$
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
