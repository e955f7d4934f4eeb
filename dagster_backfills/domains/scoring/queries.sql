-- name: members_of_day
-- Members who are scored for a day, of one gym or of all.
select
    d.day::text as partition,
    m.id as unit
from unnest(:partition_keys::date[]) as d (day)
cross join scoring.members as m
where
    scoring.is_due(
        m.status, m.joined_date, d.day,
        exists (select 1 from scoring.visits as v where v.member_id = m.id and v.visited_on <= d.day)
    )
    and (:gym::text is null or m.gym_id = :gym);

-- name: members_of_gym
-- Members whose failures a run for one gym may resolve.
select m.id as unit
from scoring.members as m
where m.gym_id = :gym;

-- name: scored_members_of_day
-- Members to compute churn risk for: those with a commitment score on this day. Members who have left are filtered out
-- batch by batch, since a join with all members would take longer than the rest of this query.
select
    s.day::text as partition,
    s.member_id as unit
from scoring.commitment_scores as s
where
    s.day = any(:partition_keys::date[])
    and (:gym::text is null or s.member_id in (select m.id from scoring.members as m where m.gym_id = :gym));

-- name: members_at_risk_of_day
-- Members at risk, whose coaches may get an action. Members who have left or have no coach are filtered out batch by
-- batch.
select
    r.day::text as partition,
    r.member_id as unit
from scoring.churn_risk_scores as r
where
    r.day = any(:partition_keys::date[]) and r.level <> 'none'
    and (:gym::text is null or r.member_id in (select m.id from scoring.members as m where m.gym_id = :gym));

-- name: features
-- Features of members as of a day, one row per member: visit counts by window, days between first and last visit, the
-- largest gap and the sum of squared gaps. Later visits are ignored. `due_only` excludes members who are not scored for
-- the day.
select
    m.id as member_id,
    greatest(:day::date - m.joined_date, 0) as joined_days,
    -- NaN becomes 1,000,000, which is beyond the column's range.
    case
        when m.expected_visits_per_week = 'NaN' then 1000000 else (m.expected_visits_per_week * 100)::integer
    end as expected_hundredths,
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
where
    m.id = any(:members::text[])
    and (not :due_only::boolean or scoring.is_due(m.status, m.joined_date, :day::date, f.visits > 0));

-- name: churn_inputs
-- Inputs of churn risk: the day's commitment scores of active members. IS TRUE keeps the subquery from becoming a join:
-- it is hashed once. A join may look up each row among all members of the batch if the day has not been analyzed.
select
    s.member_id,
    s.score as commitment_score,
    s.days_since_last_visit
from scoring.commitment_scores as s
where
    s.day = :day::date and s.member_id = any(:members::text[])
    and (
        s.member_id in (
            select m.id from scoring.members as m where m.id = any(:members::text[]) and m.status = 'active'
        )
    ) is true;

-- name: action_inputs
-- Each coach's active members at risk on the day. IS TRUE as above. OFFSET 0 forces a lookup of each member's coaches;
-- a plain join would read the whole table for every batch.
select
    r.member_id,
    c.coach_id,
    r.commitment_score,
    r.score as churn_risk_score,
    r.level as churn_risk_level,
    r.days_since_last_visit
from scoring.churn_risk_scores as r
cross join lateral (
    select mc.coach_id
    from scoring.member_coaches as mc
    where mc.member_id = r.member_id
    offset 0
) as c
where
    r.day = :day::date and r.level <> 'none' and r.member_id = any(:members::text[])
    and (
        r.member_id in (
            select m.id from scoring.members as m where m.id = any(:members::text[]) and m.status = 'active'
        )
    ) is true;

-- name: utc_now$
select clock_timestamp();

-- name: take_day$
-- Session-level lock. Returns false if another session holds it.
select pg_try_advisory_lock(hashtext(:name), :day::date - date '2000-01-01');

-- name: leave_day
select pg_advisory_unlock(hashtext(:name), :day::date - date '2000-01-01');

-- name: start_day^
-- Record that a run works on the day. It may resume an earlier attempt of its own, or of the runs that it automatically
-- retries (`own_runs`). Any other attempt may have seen other visits and members, so the day is then scored anew.
with before as (
    select c.root_run_id
    from scoring.chain_days as c
    where
        c.asset = :asset and c.day = :day::date
        and c.run_id = any(:own_runs::text[])
        and c.gym is not distinct from :gym::text
),

taken as (
    insert into scoring.chain_days (asset, day, run_id, root_run_id, gym, outcome)
    values (
        :asset, :day::date, :run_id, coalesce((select b.root_run_id from before as b), :run_id), :gym::text, 'running'
    )
    on conflict (asset, day) do update
        set
            run_id = excluded.run_id,
            root_run_id = excluded.root_run_id,
            gym = excluded.gym,
            outcome = 'running',
            reason = null,
            started_at = clock_timestamp(),
            finished_at = null
    returning root_run_id
)

select
    t.root_run_id,
    exists(select 1 from before) as resumes
from taken as t;

-- name: upstream_of_day$
-- Identifies the computation of an asset for a day.
select c.asset || ' of run ' || c.run_id || ' ' || coalesce(c.finished_at, c.started_at)::text as basis
from scoring.chain_days as c
where c.asset = :asset and c.day = :day::date;

-- name: weights_of_day$
-- Number of distinct weights among the day's commitment scores.
select count(distinct s.weights_version) as sets
from scoring.commitment_scores as s
where s.day = :day::date;

-- name: finish_day!
update scoring.chain_days
set
    outcome = :outcome,
    reason = :reason,
    expected = :expected,
    done = :done,
    failed = :failed,
    finished_at = clock_timestamp()
where asset = :asset and day = :day::date and run_id = :run_id;

-- name: coverage_of_commitment_scores^
-- Members who are due on the day, those who have a row, and those with an open failure in the ledger.
with due as (
    select m.id
    from scoring.members as m
    where
        scoring.is_due(
            m.status, m.joined_date, :day::date,
            exists (select 1 from scoring.visits as v where v.member_id = m.id and v.visited_on <= :day::date)
        )
)

select
    count(*) as expected,
    count(s.member_id) as done,
    count(f.unit) as failed
from due as d
left join scoring.commitment_scores as s on s.day = :day::date and d.id = s.member_id
left join backfill.failures as f
    on
        f.asset = 'scoring/commitment_scores' and f.partition = (:day::date)::text and f.unit = d.id
        and f.resolved_at is null;

-- name: coverage_of_churn_risk_scores^
select
    count(*) as expected,
    count(r.member_id) as done,
    count(f.unit) as failed
from scoring.commitment_scores as s
inner join scoring.members as m on s.member_id = m.id and m.status = 'active'
left join scoring.churn_risk_scores as r on r.day = :day::date and s.member_id = r.member_id
left join backfill.failures as f
    on
        f.asset = 'scoring/churn_risk_scores' and f.partition = (:day::date)::text and f.unit = s.member_id
        and f.resolved_at is null
where s.day = :day::date;

-- name: coverage_of_coach_actions^
-- Coaches with an active member at risk are due; a coach is done unless one of those members failed.
select
    count(*) as expected,
    count(*) filter (where not c.has_failed) as done,
    count(*) filter (where c.has_failed) as failed
from (
    select
        mc.coach_id,
        bool_or(f.unit is not null) as has_failed
    from scoring.churn_risk_scores as r
    inner join scoring.members as m on r.member_id = m.id and m.status = 'active'
    inner join scoring.member_coaches as mc on r.member_id = mc.member_id
    left join backfill.failures as f
        on
            f.asset = 'scoring/coach_actions' and f.partition = (:day::date)::text and f.unit = r.member_id
            and f.resolved_at is null
    where r.day = :day::date and r.level <> 'none'
    group by mc.coach_id
) as c;

-- name: chain_days
-- States of the chain's assets in a range of days.
select
    c.asset,
    c.day,
    c.run_id,
    c.outcome,
    c.reason,
    c.expected,
    c.done,
    c.failed,
    c.started_at,
    c.finished_at
from scoring.chain_days as c
where c.day between :first_day::date and :last_day::date
order by c.day, c.asset;

-- name: scored_before$
-- Whether a run has started for any earlier day.
select exists(select 1 from scoring.chain_days as c where c.day < :day::date);

-- name: summary_of_commitment_scores$
select json_strip_nulls(json_build_object(
    'members_scored', count(*),
    'band_low', count(*) filter (where s.band = 'low'),
    'band_moderate', count(*) filter (where s.band = 'moderate'),
    'band_good', count(*) filter (where s.band = 'good'),
    'band_high', count(*) filter (where s.band = 'high'),
    'mean_score', round(avg(s.score), 2)
))
from scoring.commitment_scores as s
where s.day = :day::date;

-- name: summary_of_churn_risk_scores$
select json_strip_nulls(json_build_object(
    'members_scored', count(*),
    'risk_none', count(*) filter (where r.level = 'none'),
    'risk_low', count(*) filter (where r.level = 'low'),
    'risk_medium', count(*) filter (where r.level = 'medium'),
    'risk_high', count(*) filter (where r.level = 'high'),
    'mean_score', round(avg(r.score), 2)
))
from scoring.churn_risk_scores as r
where r.day = :day::date;

-- name: summary_of_coach_actions$
-- Only action types that occur are included. Grouped first, because count(DISTINCT) sorts its rows.
select json_strip_nulls(json_build_object(
    'actions', coalesce(sum(a.actions), 0),
    'coaches_with_actions', count(distinct a.coach_id),
    'actions_check_in', sum(a.actions) filter (where a.type = 'check_in'),
    'actions_contact_member', sum(a.actions) filter (where a.type = 'contact_member'),
    'actions_follow_up', sum(a.actions) filter (where a.type = 'follow_up'),
    'actions_investigate_issue', sum(a.actions) filter (where a.type = 'investigate_issue'),
    'actions_send_campaign', sum(a.actions) filter (where a.type = 'send_campaign')
))
from (
    select
        ca.coach_id,
        ca.type,
        count(*) as actions
    from scoring.coach_actions as ca
    where ca.day = :day::date
    group by ca.coach_id, ca.type
) as a;

-- name: commitment_out_of_range$
-- Rows with a score or factor outside 0 to 100, or with the wrong band for the score.
select count(*) as bad
from scoring.commitment_scores as s
where
    s.day = :day::date
    and (
        least(s.score, s.attendance_decay, s.missed_sessions, s.time_gaps, s.decline_velocity) < 0
        or greatest(s.score, s.attendance_decay, s.missed_sessions, s.time_gaps, s.decline_velocity) > 100
        or s.time_decay not between 0 and 1
        or s.band <> case
            when s.score <= 30 then 'low' when s.score <= 60 then 'moderate' when s.score <= 80 then 'good' else 'high'
        end
    );

-- name: churn_out_of_range$
-- Rows with a score outside 0 to 100, or with a commitment score that differs from the day's.
select count(*) as bad
from scoring.churn_risk_scores as r
left join scoring.commitment_scores as s on s.day = :day::date and r.member_id = s.member_id
where
    r.day = :day::date
    and (r.score not between 0 and 100 or r.commitment_score is distinct from s.score);

-- name: coach_coverage^
-- Active members at risk, and how many of them have no coach.
select
    count(*) as at_risk,
    count(*) filter (
        where not exists (select 1 from scoring.member_coaches as c where c.member_id = r.member_id)
    ) as without_coach
from scoring.churn_risk_scores as r
inner join scoring.members as m on r.member_id = m.id and m.status = 'active'
where r.day = :day::date and r.level <> 'none';

-- name: mean_scores^
-- The mean score of a day and of the latest earlier day, over the members who have both.
select
    avg(s.score) as mean,
    avg(b.score) as mean_before,
    max(b.day) as day_before
from scoring.commitment_scores as s
inner join scoring.commitment_scores as b
    on
        s.member_id = b.member_id
        and b.day = (select max(e.day) from scoring.commitment_scores as e where e.day < :day::date)
where s.day = :day::date;

-- name: member_for_explanation^
-- A member's name, status, stored score for the day, and coaches.
select
    concat_ws(' ', m.first_name, m.last_name) as name,
    m.status,
    (
        select s.score from scoring.commitment_scores as s
        where s.day = :day::date and s.member_id = m.id
    ) as stored,
    array(
        select c.coach_id from scoring.member_coaches as c
        where c.member_id = m.id order by c.coach_id
    ) as coaches
from scoring.members as m
where m.id = :member;

-- name: mark_done!
-- Mark an existing action as done. If it is already done, the first mark is kept.
insert into scoring.coach_actions_done (day, member_id, coach_id, done_by)
select a.day, a.member_id, a.coach_id, :done_by
from scoring.coach_actions as a
where a.day = :day::date and a.member_id = :member and a.coach_id = :coach
on conflict do nothing;

-- name: mark_open!
delete from scoring.coach_actions_done as d
where d.day = :day::date and d.member_id = :member and d.coach_id = :coach;

-- name: failed_units
-- Open failures of a day's members, with message and run.
select f.unit as failed, f.partition, f.message, f.run_id
from backfill.failures as f
where f.asset = :asset and f.partition = :day and f.unit is not null and f.resolved_at is null
order by f.unit;
