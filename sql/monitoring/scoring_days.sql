-- The last 30 scored days: members, mean score, share of each band, members at high risk, actions.
select
    s.day,
    count(*) as members,
    round(avg(s.score), 1) as mean_score,
    round(100.0 * count(*) filter (where s.band = 'low') / count(*), 1) as low_percent,
    round(100.0 * count(*) filter (where s.band = 'moderate') / count(*), 1) as moderate_percent,
    round(100.0 * count(*) filter (where s.band = 'good') / count(*), 1) as good_percent,
    round(100.0 * count(*) filter (where s.band = 'high') / count(*), 1) as high_percent,
    (
        select count(*) from scoring.churn_risk_scores as r
        where r.day = s.day and r.level = 'high'
    ) as at_high_risk,
    (
        select count(*) from scoring.coach_actions as a
        where a.day = s.day
    ) as actions
from scoring.commitment_scores as s
where s.day >= (now() at time zone 'UTC')::date - 30
group by s.day
order by s.day desc;
