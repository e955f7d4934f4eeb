-- The import in plain SQL: one statement over the raw text. Valid rows become sessions; bad ones are skipped.

-- name: raw_table
create unlogged table bench.raw (
    session_id text, session_type text, participant_email text, volunteer_email text, date text, duration_min text,
    rating text, feedback_text text, language_level text
);

-- name: insert_select
with checked as (
    select
        trim(r.session_id) as external_session_id,
        case lower(trim(r.session_type)) when 'language connect' then 'language' when 'mentorship' then 'mentorship' end
            as session_type,
        lower(trim(r.participant_email)) as participant_email,
        lower(trim(r.volunteer_email)) as volunteer_email,
        case
            when trim(r.date) ~ '^\d{4}-(0[1-9]|1[0-2])-(0[1-9]|[12]\d|3[01])([T ]\d{2}:\d{2}(:\d{2})?(Z|[+-]\d{2}:\d{2})?)?$'
                then trim(r.date)::timestamptz
        end as scheduled_at,
        case when trim(r.duration_min) ~ '^[0-9]{1,9}$' then nullif(trim(r.duration_min)::integer, 0) end as duration_minutes,
        nullif(trim(r.rating), '') as rating,
        nullif(trim(r.feedback_text), '') as feedback_text,
        nullif(upper(trim(r.language_level)), '') as language_level
    from bench.raw as r
),
valid as (
    select distinct on (external_session_id) *
    from checked
    where external_session_id <> ''
        and session_type is not null
        and participant_email ~ '^[^@\s]+@[^@\s]+\.[^@\s]+$'
        and volunteer_email ~ '^[^@\s]+@[^@\s]+\.[^@\s]+$'
        and scheduled_at is not null
        and duration_minutes is not null
        and (rating is null or rating ~ '^[1-5]$')
        and (language_level is null or language_level in ('A1', 'A2', 'B1', 'B2', 'C1', 'C2'))
    order by external_session_id
)
insert into bench.sessions (
    id, external_session_id, session_type, participant_id, volunteer_id, scheduled_at, completed_at, duration_minutes,
    rating, feedback_text, language_level
)
select
    -- Ascending IDs by the cheapest expression: a library call per row would cost more than the rest of the row.
    (
        lpad(to_hex((extract(epoch from now()) * 1000)::bigint), 12, '0')
        || '70008000'
        || lpad(to_hex(row_number() over ()), 12, '0')
    )::uuid as id,
    v.external_session_id, v.session_type, p.id as participant_id, w.id as volunteer_id,
    v.scheduled_at, v.scheduled_at as completed_at, v.duration_minutes,
    v.rating::smallint as rating, v.feedback_text, v.language_level
from valid as v
inner join kintell.users as p on lower(p.email) = v.participant_email
inner join kintell.users as w on lower(w.email) = v.volunteer_email
on conflict (external_session_id) do nothing;
