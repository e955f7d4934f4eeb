-- Progress by organization as charts show it, lowest first.
select
    o.id as organization_id,
    o.name as organization_name,
    p.members,
    p.records,
    p.completed,
    p.percent,
    p.updated_at
from training.organization_training_progress as p
inner join training.organizations as o on p.organization_id = o.id
order by p.percent, p.members desc, o.id;
