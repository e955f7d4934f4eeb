-- name: scored_gyms
select id from scoring.gyms order by id;

-- name: scored_members
select gym_id as partition, id as unit from scoring.members
where gym_id = any(:partition_keys) and commitment_score is not null;

-- name: newest_scores
select s.gym_id as partition, m.id, s.commitment_score, s.churn_risk_score, s.churn_risk_level
from scoring.members as s
inner join public.members as m on s.id = m.id::text
where s.gym_id = any(:partition_keys) and s.commitment_score is not null
    and (:unit_keys::text[] is null or s.id = any(:unit_keys));
