-- Queries of the coach's day pages.

-- name: newest_day$
select max(a.day) from scoring.coach_actions as a;

-- name: chain_of_day
select c.outcome, c.reason, c.gym, c.done, c.expected, c.failed
from scoring.chain_days as c
where c.asset = 'scoring/coach_actions' and c.day = :day;

-- name: coaches
-- All coaches with the number of their actions on the day: total, high priority, done.
select
    c.id, g.name as gym, count(a.coach_id) as actions,
    count(a.coach_id) filter (where a.priority = 'high') as high,
    count(d.coach_id) as done
from scoring.coaches as c
inner join scoring.gyms as g on g.id = c.gym_id
left join scoring.coach_actions as a on a.coach_id = c.id and a.day = :day
left join scoring.coach_actions_done as d on d.day = a.day and d.member_id = a.member_id and d.coach_id = a.coach_id
where
    :after::text is null
    or (g.name, c.id) > (
        select ag.name, ac.id from scoring.coaches as ac
        inner join scoring.gyms as ag on ag.id = ac.gym_id
        where ac.id = :after::text
    )
group by c.id, g.name
order by g.name, c.id
limit :most;

-- name: coach
select c.id, g.name as gym
from scoring.coaches as c
inner join scoring.gyms as g on g.id = c.gym_id
where c.id = :coach;

-- name: actions
-- A coach's actions on a day, by priority and then by churn risk, highest first.
with ranked as (
    select
        a.day, a.coach_id, a.member_id, a.type, a.priority, a.title, a.description, a.reason_codes,
        a.commitment_score, a.churn_risk_score, a.churn_risk_level,
        array_position(array['high', 'medium', 'low'], a.priority) as urgency
    from scoring.coach_actions as a
    where a.coach_id = :coach and a.day = :day
)

select
    r.member_id, m.first_name, m.last_name, r.type, r.priority, r.title, r.description, r.reason_codes,
    r.commitment_score, r.churn_risk_score, r.churn_risk_level, d.done_at, d.done_by
from ranked as r
left join scoring.members as m on m.id = r.member_id
left join scoring.coach_actions_done as d on d.day = r.day and d.member_id = r.member_id and d.coach_id = r.coach_id
where
    :after::text is null
    or (r.urgency, -r.churn_risk_score, r.member_id) > (
        select p.urgency, -p.churn_risk_score as likeliness, p.member_id from ranked as p where p.member_id = :after::text
    )
order by r.urgency, -r.churn_risk_score, r.member_id
limit :most;

-- name: totals
select count(a.coach_id) as actions, count(d.coach_id) as done
from scoring.coach_actions as a
left join scoring.coach_actions_done as d on d.day = a.day and d.member_id = a.member_id and d.coach_id = a.coach_id
where a.coach_id = :coach and a.day = :day;
