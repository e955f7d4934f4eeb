comment on schema scoring is
'Daily commitment scores, churn risk scores and coach actions.';

-- Source tables.
create table scoring.gyms (
    id text primary key,
    name text not null
);
comment on table scoring.gyms is
'Source: gyms.';
create table scoring.members (
    id text primary key,
    gym_id text not null references scoring.gyms,
    first_name text not null,
    last_name text not null,
    status text not null,
    joined_date date not null,
    expected_visits_per_week numeric(6, 2),
    -- The newest day's values, updated by triggers on the history tables below.
    commitment_score smallint,
    commitment_band text,
    commitment_day date,
    churn_risk_score smallint,
    churn_risk_level text,
    churn_risk_day date
-- Each day updates a row twice and makes it longer. The low fill factor leaves room for HOT updates.
) with (fillfactor = 40);
comment on table scoring.members is
'Source: members of gyms.';
comment on column scoring.members.expected_visits_per_week is 'The member''s own goal, or null.';
comment on column scoring.members.commitment_score is 'The score of the newest scored day.';
comment on column scoring.members.churn_risk_score is 'The score of the newest scored day.';
-- Without the ID: the planner would look up batches of members in this index, which is not in their order.
create index members_gym_id_idx on scoring.members (gym_id);
-- To find the first day that can be scored.
create index members_joined_date_idx on scoring.members (joined_date);
create table scoring.visits (
    member_id text not null references scoring.members on delete cascade,
    visited_on date not null
);
comment on table scoring.visits is
'Source: visits, one row each.';
-- The feature query is an index-only scan in this order: a member's visits by day.
create index visits_member_id_visited_on_idx on scoring.visits (member_id, visited_on);
create table scoring.coaches (
    id text primary key,
    gym_id text not null references scoring.gyms
);
comment on table scoring.coaches is
'Source: coaches of gyms.';
create index coaches_gym_id_idx on scoring.coaches (gym_id);
create table scoring.member_coaches (
    coach_id text not null references scoring.coaches on delete cascade,
    member_id text not null references scoring.members on delete cascade,
    primary key (member_id, coach_id)
);
comment on table scoring.member_coaches is
'Source: assignments of members to coaches.';
create index member_coaches_coach_id_idx on scoring.member_coaches (coach_id);

-- Targets. Primary keys start with the day, so that a day's rows are appended to the index; a member's history is one
-- lookup per day. There is no foreign key to members, because its check would lock and rewrite the member's row for
-- every history row. A trigger on members deletes the history of a deleted member.
create table scoring.commitment_scores (
    day date not null,
    member_id text not null,
    score smallint not null check (score between 0 and 100),
    attendance_decay smallint not null check (attendance_decay between 0 and 100),
    missed_sessions smallint not null check (missed_sessions between 0 and 100),
    time_gaps smallint not null check (time_gaps between 0 and 100),
    decline_velocity smallint not null check (decline_velocity between 0 and 100),
    time_decay numeric(3, 2) not null check (time_decay between 0 and 1),
    velocity_per_week numeric(8, 1) not null,
    days_since_last_visit integer check (days_since_last_visit >= 0),
    no_recent_visits boolean not null,
    rapid_decline boolean not null,
    large_gap boolean not null,
    inconsistent_pattern boolean not null,
    new_member_low_attendance boolean not null,
    declining_frequency boolean not null,
    band text not null check (band in ('low', 'moderate', 'good', 'high')),
    weights_version text not null,
    scored_at timestamptz not null default now(),
    primary key (day, member_id)
);
comment on table scoring.commitment_scores is
'Commitment scores with their factors, one row per day and member.';
comment on column scoring.commitment_scores.day is 'The day that the score is as of, which is the partition.';
comment on column scoring.commitment_scores.score is
'0 to 100: the weighted sum of the four factors, times the time decay.';
comment on column scoring.commitment_scores.attendance_decay is 'Factor, 0 to 100.';
comment on column scoring.commitment_scores.missed_sessions is 'Factor, 0 to 100.';
comment on column scoring.commitment_scores.time_gaps is 'Factor, 0 to 100.';
comment on column scoring.commitment_scores.decline_velocity is 'Factor, 0 to 100.';
comment on column scoring.commitment_scores.time_decay is 'Multiplier, 0 to 1, by days since the last visit.';
comment on column scoring.commitment_scores.velocity_per_week is 'Change in visits per week.';
comment on column scoring.commitment_scores.days_since_last_visit is 'Null if the member has never visited.';
comment on column scoring.commitment_scores.band is '`low`, `moderate`, `good` or `high`.';
comment on column scoring.commitment_scores.weights_version is 'The version of the weights used.';

create table scoring.churn_risk_scores (
    day date not null,
    member_id text not null,
    level text not null check (level in ('none', 'low', 'medium', 'high')),
    score smallint not null check (score between 0 and 100),
    commitment_score smallint not null,
    days_since_last_visit integer,
    scored_at timestamptz not null default now(),
    primary key (day, member_id)
);
comment on table scoring.churn_risk_scores is
'Churn risk scores, one row per day and member.';
comment on column scoring.churn_risk_scores.day is 'The day that the score is as of, which is the partition.';
comment on column scoring.churn_risk_scores.level is '`none`, `low`, `medium` or `high`.';
comment on column scoring.churn_risk_scores.score is '0 to 100; a higher score means a higher risk.';
comment on column scoring.churn_risk_scores.commitment_score is
'The day''s commitment score that the risk is based on.';

create table scoring.coach_actions (
    day date not null,
    member_id text not null,
    coach_id text not null,
    type text not null
    check (type in ('contact_member', 'send_campaign', 'check_in', 'investigate_issue', 'follow_up')),
    priority text not null check (priority in ('low', 'medium', 'high')),
    title text not null,
    description text not null,
    reason_codes text[] not null,
    commitment_score smallint not null,
    churn_risk_score smallint not null,
    churn_risk_level text not null check (churn_risk_level in ('low', 'medium', 'high')),
    days_since_last_visit integer,
    created_at timestamptz not null default now(),
    primary key (day, member_id, coach_id)
);
comment on table scoring.coach_actions is
'Recommended actions for coaches, one row per day, member and coach.';
comment on column scoring.coach_actions.day is 'The day that the action is for, which is the partition.';
comment on column scoring.coach_actions.coach_id is 'The coach who should act.';
comment on column scoring.coach_actions.type is 'The kind of action.';
comment on column scoring.coach_actions.priority is '`low`, `medium` or `high`.';
comment on column scoring.coach_actions.reason_codes is
'Machine-readable reasons; `description` is the text for people.';
-- For a coach's list of the day.
create index coach_actions_coach_id_day_idx on scoring.coach_actions (coach_id, day);

-- A separate table, so that recomputing a day does not affect it.
create table scoring.coach_actions_done (
    day date not null,
    member_id text not null,
    coach_id text not null,
    done_by text not null,
    done_at timestamptz not null default now(),
    primary key (day, member_id, coach_id)
);
comment on table scoring.coach_actions_done is
'Coach actions that somebody has marked as done.';

create table scoring.chain_days (
    asset text not null,
    day date not null,
    run_id text not null,
    root_run_id text not null,  -- the first of the attempts that resume each other
    gym text,  -- set if the run was for a single gym
    outcome text not null check (outcome in ('running', 'complete', 'partial', 'failed')),
    reason text,
    expected bigint not null default 0,
    done bigint not null default 0,
    failed bigint not null default 0,
    started_at timestamptz not null default clock_timestamp(),
    finished_at timestamptz,
    primary key (asset, day),
    check ((outcome = 'running') = (finished_at is null))
);
comment on table scoring.chain_days is
'Status of the daily chain, one row per asset and day, updated by the run that computes the day.';
create index chain_days_day_idx on scoring.chain_days (day);

-- Copies the newest day's values to the member row. An older day never overwrites a newer one, and equal values are not
-- written. The range condition on member IDs keeps each batch from scanning the whole table, because a batch is a range
-- of members. EXECUTE plans for this range and batch size, not for those of the first call.
-- Arguments: three columns of the member row, and the two history columns to copy (with the day).
create function scoring.keep_newest() returns trigger
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
declare
    latest text := 'new_rows';
    first_member text;
    last_member text;
    several_days boolean;
begin
    select min(w.member_id), max(w.member_id), min(w.day) <> max(w.day)
    into first_member, last_member, several_days
    from new_rows as w;
    if first_member is null then
        return null;
    end if;
    if several_days then
        latest := '(select distinct on (w.member_id) w.* from new_rows as w order by w.member_id, w.day desc)';
    end if;
    execute format($sql$
        update scoring.members as m
        set %1$I = s.%4$I, %2$I = s.%5$I, %3$I = s.day
        from %6$s as s
        where m.id = s.member_id
            and m.id between %7$L and %8$L
            and (m.%3$I is null or m.%3$I <= s.day)
            and (m.%1$I, m.%2$I, m.%3$I) is distinct from (s.%4$I, s.%5$I, s.day)
    $sql$, tg_argv[0], tg_argv[1], tg_argv[2], tg_argv[3], tg_argv[4], latest, first_member, last_member);
    return null;
end
$$;
select backfill.add_triggers(
    'scoring.commitment_scores', 'scoring.keep_newest', '{insert, update}',
    'commitment_score', 'commitment_band', 'commitment_day', 'score', 'band'
);
select backfill.add_triggers(
    'scoring.churn_risk_scores', 'scoring.keep_newest', '{insert, update}',
    'churn_risk_score', 'churn_risk_level', 'churn_risk_day', 'score', 'level'
);

-- Deletes the history of deleted members, with one lookup per day in each primary key. The series of days has no time
-- zone, because a time zone may skip a midnight.
create function scoring.forget_members() returns trigger
language plpgsql security definer
set search_path = pg_catalog, pg_temp
set row_security = off
as $$
declare
    history text;
begin
    foreach history in array array['commitment_scores', 'churn_risk_scores', 'coach_actions', 'coach_actions_done'] loop
        execute format(
            'delete from scoring.%1$I as h using gone as g, generate_series('
            || '(select min(day)::timestamp from scoring.%1$I), (select max(day)::timestamp from scoring.%1$I), '
            || 'interval ''1 day'') as d where h.day = d::date and h.member_id = g.id', history);
    end loop;
    return null;
end
$$;
create trigger forget_history after delete on scoring.members
referencing old table as gone for each statement execute function scoring.forget_members();

-- A day is up to date when all three assets are complete and no member has failed.
create view scoring.overview as
select
    'days of the last week' as of_what,
    count(*) as units,
    count(*) filter (where d.complete = 3 and d.broken = 0) as up_to_date,
    count(*) filter (where d.worked < 3 and d.broken = 0) as missing,
    0::bigint as stale,
    count(*) filter (where d.broken > 0) as failed,
    null::timestamptz as oldest_stale
from (
    select
        count(c.asset) as worked,
        count(*) filter (where c.outcome = 'complete') as complete,
        count(*) filter (where c.outcome in ('partial', 'failed') or c.failed > 0) as broken
    from generate_series(1, 7) as ago (days)
    left join scoring.chain_days as c on c.day = (now() at time zone 'UTC')::date - ago.days
    group by ago.days
) as d;
comment on view scoring.overview is
'Summary of the domain for `backfills status`: the last seven days. A single row.';

-- Active members who had joined or visited by that day. The planner inlines the function, so that visits are looked up
-- only if the joining date does not decide.
create function scoring.is_due(status text, joined_date date, day date, visited boolean) returns boolean
language sql immutable parallel safe
return status = 'active' and (joined_date <= day or visited);
comment on function scoring.is_due(text, date, date, boolean) is
'Whether a member is scored as of a day. visited: whether the member has a visit up to that day.';
