-- The newest day's values on the member row, as before, looked for only between the first and the last member that was
-- written. A batch is a stretch of members; without its ends each one would read the whole table of members.
-- EXECUTE plans for this stretch and the size of this batch, not for those of the first one.
create or replace function scoring.keep_newest_commitment() returns trigger
language plpgsql as $$
declare
    latest text := 'written';
    first_member text;
    last_member text;
    several_days boolean;
begin
    select min(w.member_id), max(w.member_id), min(w.day) <> max(w.day)
    into first_member, last_member, several_days
    from written as w;
    if first_member is null then
        return null;
    end if;
    if several_days then
        latest := '(select distinct on (w.member_id) w.* from written as w order by w.member_id, w.day desc)';
    end if;
    execute format($sql$
        update scoring.members as m
        set
            commitment_score = s.score,
            commitment_band = s.band,
            commitment_day = s.day
        from %s as s
        where m.id = s.member_id
            and m.id between %L and %L
            and (m.commitment_day is null or m.commitment_day <= s.day)
            and (m.commitment_score, m.commitment_band, m.commitment_day)
            is distinct from (s.score, s.band, s.day)
    $sql$, latest, first_member, last_member);
    return null;
end
$$;

create or replace function scoring.keep_newest_churn_risk() returns trigger
language plpgsql as $$
declare
    latest text := 'written';
    first_member text;
    last_member text;
    several_days boolean;
begin
    select min(w.member_id), max(w.member_id), min(w.day) <> max(w.day)
    into first_member, last_member, several_days
    from written as w;
    if first_member is null then
        return null;
    end if;
    if several_days then
        latest := '(select distinct on (w.member_id) w.* from written as w order by w.member_id, w.day desc)';
    end if;
    execute format($sql$
        update scoring.members as m
        set
            churn_risk_score = s.score,
            churn_risk_level = s.level,
            churn_risk_day = s.day
        from %s as s
        where m.id = s.member_id
            and m.id between %L and %L
            and (m.churn_risk_day is null or m.churn_risk_day <= s.day)
            and (m.churn_risk_score, m.churn_risk_level, m.churn_risk_day)
            is distinct from (s.score, s.level, s.day)
    $sql$, latest, first_member, last_member);
    return null;
end
$$;
