-- Organizations with missing records, changed counts or failed members, oldest first.
select
    organization_id,
    organization_name,
    members,
    expected,
    records,
    missing,
    failed_members,
    stale_since
from training.organization_status
where missing > 0 or failed_members > 0 or stale_since is not null or not has_progress
order by created_at, organization_id;
