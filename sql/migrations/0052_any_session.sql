-- Triggers on tables that applications write work for every role that may write there, whatever its session is set to.

-- A day's key is its date in ISO's form, not in that of the session that wrote.
alter function kintell.mark_summary_days() security definer set datestyle = 'ISO, MDY';

-- The days between are counted without a time zone, in which a midnight may be missing.
create or replace function scoring.forget_members() returns trigger
language plpgsql security definer as $$
declare
    history text;
begin
    foreach history in array array['commitment_scores', 'churn_risk_scores', 'coach_actions'] loop
        execute format(
            'delete from scoring.%1$I as h using gone as g, generate_series('
            || '(select min(day)::timestamp from scoring.%1$I), (select max(day)::timestamp from scoring.%1$I), '
            || 'interval ''1 day'') as d where h.day = d::date and h.member_id = g.id', history);
    end loop;
    return null;
end
$$;

do $$
declare
    own record;
begin
    for own in
        select p.oid::regprocedure as name, p.prosecdef as definer, p.prorettype = 'trigger'::regtype as is_trigger
        from pg_proc as p
        where p.pronamespace::regnamespace::text in (
            'backfill', 'training', 'progress', 'kintell', 'jobs', 'scoring', 'operations'
        )
    loop
        if own.is_trigger or own.definer then
            execute format('alter function %s set search_path = pg_catalog, pg_temp', own.name);
        end if;
        -- Rows that a policy hides from the owner are an error; taken for deleted, their statistics would go.
        if own.definer then
            execute format('alter function %s set row_security = off', own.name);
        end if;
    end loop;
end
$$;
