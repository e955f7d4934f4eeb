-- Status queries of the training domain. Each statement runs in psql; nothing is written.

-- name: missing_records
-- Number of missing records by organization, of all or one.
select
    s.organization_id,
    s.missing
from training.organization_status as s
where :organization::text is null or s.organization_id = :organization::text;

-- name: organization_names
-- IDs and names, for suggestions when an ID is unknown.
select
    o.id,
    o.name
from training.organizations as o
order by o.id;

-- name: run_totals^
-- Totals of one run over all its batches. `present`: the records that its organizations have now.
with done as (
    select distinct p.partition
    from backfill.batches as b
    cross join lateral unnest(b.partitions) as p (partition)
    where b.run_id = :run_id::text and b.asset = any(:assets::text[]) and b.units_upto is null
),

written as (
    select
        sum(b.units) as members,
        sum(b.rows_inserted) as created
    from backfill.batches as b
    where b.run_id = :run_id::text and b.asset = :completions::text
),

present as (
    select sum(p.records) as records
    from done as d
    inner join training.organization_training_progress as p on d.partition = p.organization_id
)

select
    (select count(*) from done) as organizations,
    coalesce((select w.members from written as w), 0)::bigint as members,
    (select count(*) from training.training_videos) as videos,
    coalesce((select w.created from written as w), 0)::bigint as records_created,
    greatest(
        coalesce((select p.records from present as p), 0) - coalesce((select w.created from written as w), 0), 0
    )::bigint as records_already_there,
    (
        select count(*) from backfill.failures as f
        where f.run_id = :run_id::text and f.asset = any(:assets::text[]) and f.resolved_at is null
    ) as failures,
    coalesce((
        select extract(epoch from max(coalesce(r.finished_at, clock_timestamp())) - min(r.started_at))
        from backfill.runs as r
        where r.run_id = :run_id::text and r.assets && :assets::text[]
    ), 0)::double precision as seconds;

-- name: run_organizations
-- Organizations that a run processed, largest first: the data of its chart.
select
    o.id as organization_id,
    o.name as organization_name,
    p.members,
    p.records,
    p.completed,
    p.percent,
    (
        select count(*) from backfill.failures as f
        where f.asset = :completions::text and f.partition = o.id and f.unit is not null and f.resolved_at is null
    ) as failed_members
from (
    select distinct w.partition
    from backfill.batches as b
    cross join lateral unnest(b.partitions) as w (partition)
    where b.run_id = :run_id::text and b.asset = any(:assets::text[]) and b.units_upto is null
) as done
inner join training.organizations as o on done.partition = o.id
inner join training.organization_training_progress as p on o.id = p.organization_id
order by p.members desc, o.created_at, o.id
limit :shown::integer;

-- name: run_failures
-- Open failures of a run, with the database's message.
select
    f.partition as organization_id,
    o.name as organization_name,
    coalesce(f.unit, '(the organization)') as member_id,
    f.message
from backfill.failures as f
left join training.organizations as o on f.partition = o.id
where f.run_id = :run_id::text and f.asset = any(:assets::text[]) and f.resolved_at is null
order by f.partition, f.unit
limit :shown::integer;
