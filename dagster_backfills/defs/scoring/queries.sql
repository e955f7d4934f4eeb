-- name: members_of_day
-- Who is scored as of a day: active members that had joined by then, or had a visit by then; of one gym or of all.
select m.id
from scoring.members as m
where
    m.status = 'active'
    and (:gym::text is null or m.gym_id = :gym)
    and (
        m.joined_date <= :day::date
        or exists (select 1 from scoring.visits as v where v.member_id = m.id and v.visited_on <= :day::date)
    )
order by m.id;

-- name: features
-- What the rules need of each member as of a day, one row a member: counts of visits by window, the first and the
-- last visit, the widest gap and the sum of squared gaps. Visits after the day are not seen.
select
    m.id as member_id,
    greatest(:day::date - m.joined_date, 0) as joined_days,
    (m.expected_visits_per_week * 100)::integer as expected_hundredths,
    f.visits,
    f.v30,
    f.v60,
    f.v90,
    f.second_half_visits,
    coalesce(f.last_on - f.first_on, 0) as span_days,
    coalesce(:day::date - f.last_on, 0) as days_since_last,
    coalesce(f.max_gap, 0) as max_gap,
    coalesce(f.gap_squares, 0) as gap_squares
from scoring.members as m
left join lateral (
    select
        count(*) as visits,
        count(*) filter (where g.visited_on > :day::date - 30) as v30,
        count(*) filter (where g.visited_on > :day::date - 60 and g.visited_on <= :day::date - 30) as v60,
        count(*) filter (where g.visited_on > :day::date - 90 and g.visited_on <= :day::date - 60) as v90,
        count(*) filter (
            where g.visited_on >= :day::date - greatest(:day::date - m.joined_date, 0) / 2
        ) as second_half_visits,
        min(g.visited_on) as first_on,
        max(g.visited_on) as last_on,
        max(g.gap) as max_gap,
        sum(g.gap * g.gap) as gap_squares
    from (
        select
            v.visited_on,
            v.visited_on - lag(v.visited_on) over (order by v.visited_on) as gap
        from scoring.visits as v
        where v.member_id = m.id and v.visited_on <= :day::date
    ) as g
) as f on true
where m.id = any(:members::text[]);

-- name: churn_inputs
-- What churn risk is made of: the commitment scores of the day.
select
    s.member_id,
    s.score as commitment_score,
    s.days_since_last_visit
from scoring.commitment_scores as s
where s.day = :day::date and s.member_id = any(:members::text[]);

-- name: action_inputs
-- Each coach's active members at risk on the day.
select
    c.member_id,
    c.coach_id,
    r.commitment_score,
    r.score as churn_risk_score,
    r.level as churn_risk_level,
    r.days_since_last_visit
from scoring.churn_risk_scores as r
inner join scoring.members as m on r.member_id = m.id and m.status = 'active'
inner join scoring.member_coaches as c on r.member_id = c.member_id
where r.day = :day::date and r.level <> 'none' and r.member_id = any(:members::text[]);
