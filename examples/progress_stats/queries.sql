-- name: cohorts
select "_id" from learn.cohort where "deletedAt" is null order by "_creationTime", "_id";

-- name: students_units
select "cohortId" as partition, "_id" as unit from learn.users
where "deletedAt" is null and "cohortId" = any(:partition_keys);

-- name: students
select
    u."_id" as user_id, u."cohortId" as cohort_id,
    count(*) filter (
        where jsonb_array_length(p."selectedOptions") > 0 or jsonb_array_length(p."eliminatedOptions") > 0
    ) as interacted,
    count(*) filter (where p."isMastered") as mastered,
    to_timestamp(max(p."lastAttemptAt") / 1000) as last_activity_at
from learn.users as u
left join (learn."userProgress" as p inner join learn.class as c on p."classId" = c."_id")
    on u."_id" = p."userId" and u."cohortId" = c."cohortId" and p."deletedAt" is null and c."deletedAt" is null
where u."deletedAt" is null and u."cohortId" = any(:partition_keys)
    and (:unit_keys::text[] is null or u."_id" = any(:unit_keys))
group by u."_id", u."cohortId";

-- name: cohort_stats
select
    k.id as cohort_id, s.students, q.questions,
    coalesce(round(100.0 * s.interacted / nullif(s.students * q.questions, 0)), 0) as average_completion
from unnest(:partition_keys::text[]) as k (id)
cross join lateral (
    select count(*) as students, coalesce(sum(interacted), 0) as interacted
    from stats.students where cohort_id = k.id
) as s
cross join lateral (
    select count(*) as questions
    from learn.class as c
    inner join learn.module as m on c."_id" = m."classId" inner join learn.question as q on m."_id" = q."moduleId"
    where c."cohortId" = k.id and num_nonnulls(c."deletedAt", m."deletedAt", q."deletedAt") = 0
) as q;

-- name: cohorts_of_users
-- The users' current cohorts, and the cohorts in which they were last counted.
select c."cohortId" from changed_rows as c
union all
select s.cohort_id from changed_rows as c inner join stats.students as s on c."_id" = s.user_id;

-- name: cohorts_of_progress
select k."cohortId" from changed_rows as c inner join learn.class as k on c."classId" = k."_id";

-- name: cohorts_of_modules
select k."cohortId" from changed_rows as c inner join learn.class as k on c."classId" = k."_id";

-- name: cohorts_of_questions
select k."cohortId" from changed_rows as c
inner join learn.module as m on c."moduleId" = m."_id" inner join learn.class as k on m."classId" = k."_id";
