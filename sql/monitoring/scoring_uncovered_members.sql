-- Active members without a coach at medium or high risk as of the newest scored day, by gym.
select
    m.gym_id,
    r.level,
    count(*) as members
from scoring.churn_risk_scores as r
inner join scoring.members as m on r.member_id = m.id and m.status = 'active'
where
    r.day = (select max(e.day) from scoring.churn_risk_scores as e)
    and r.level in ('medium', 'high')
    and not exists (select 1 from scoring.member_coaches as c where c.member_id = m.id)
group by m.gym_id, r.level
order by count(*) desc, m.gym_id;
