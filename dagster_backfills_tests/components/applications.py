"""Tables of real applications: their names, types, defaults and quirks."""

# A compliance application: CamelCase in `public`, IDs from a function, times without a zone.
COMPLIANCE = """
create function public.prefixed_id(prefix text) returns text language sql volatile as
$$ select prefix || '_' || substr(md5(random()::text || clock_timestamp()::text), 1, 20) $$;
create type public."Departments" as enum ('none', 'admin', 'it');
create table public."Organization" (
    id text primary key default public.prefixed_id('org'), name text not null,
    "createdAt" timestamp(3) not null default current_timestamp
);
create table public."User" (id text primary key, name text not null, email text not null unique);
create table public."Member" (
    id text primary key default public.prefixed_id('mem'),
    "organizationId" text not null references public."Organization" on delete cascade,
    "userId" text references public."User", role text not null,
    "createdAt" timestamp(3) not null default current_timestamp,
    department public."Departments" not null default 'none',
    "isActive" boolean not null default true, deactivated boolean not null default false
);
create table public."EmployeeTrainingVideoCompletion" (
    id text primary key default public.prefixed_id('evc'), "completedAt" timestamp(3), "videoId" text not null,
    "memberId" text not null references public."Member" on delete cascade, unique ("memberId", "videoId")
);
create index "EmployeeTrainingVideoCompletion_memberId_idx" on public."EmployeeTrainingVideoCompletion" ("memberId");
insert into public."Organization" (id, name, "createdAt") values
    ('org_a', 'Alpha', '2024-05-01 10:00:00.123'), ('org_b', 'Beta', '2024-06-01'), ('org_c', 'Empty', '2024-07-01');
insert into public."Member" (id, "organizationId", role, deactivated) values
    ('mem_1', 'org_a', 'owner,admin', false), ('mem_2', 'org_a', 'employee', false),
    ('mem_3', 'org_a', 'employee', true), ('mem_4', 'org_b', 'employee', false);
insert into public."EmployeeTrainingVideoCompletion" (id, "completedAt", "videoId", "memberId")
values ('evc_old', '2024-05-02 08:00:00.456', 'sat-1', 'mem_1');
"""

# A learning application's documents, as a connector replicates them, and the result tables next to them.
LEARNING = """
create schema learn;
create table learn.school ("_id" text primary key, "_creationTime" double precision not null, name text);
create table learn.cohort (
    "_id" text primary key, "_creationTime" double precision not null, name text, "schoolId" text,
    "deletedAt" double precision, stats jsonb
);
create table learn.class ("_id" text primary key, "cohortId" text, "deletedAt" double precision);
create table learn.module ("_id" text primary key, "classId" text, "deletedAt" double precision);
create table learn.question ("_id" text primary key, "moduleId" text, status text, "deletedAt" double precision);
create table learn.users (
    "_id" text primary key, name text, "cohortId" text, "deletedAt" double precision, "progressStats" jsonb
);
create table learn."userProgress" (
    "_id" text primary key, "userId" text, "classId" text, "questionId" text, "selectedOptions" jsonb,
    "eliminatedOptions" jsonb, "isFlagged" boolean, "isMastered" boolean, attempts double precision,
    "lastAttemptAt" double precision, "deletedAt" double precision
);
create schema stats;
create table stats.students (
    user_id text primary key, cohort_id text not null, interacted integer not null, mastered integer not null,
    last_activity_at timestamptz
);
create table stats.cohorts (
    cohort_id text primary key, students integer not null, questions integer not null,
    average_completion integer not null check (average_completion <= 100)
);
insert into learn.cohort values
    ('c1', 1700000000000, 'First', 's', null, null), ('c2', 1700000001000, 'Second', 's', null, null),
    ('c3', 1700000002000, 'Gone', 's', 1700000003000, null);
insert into learn.class values ('k1', 'c1', null), ('k2', 'c2', null);
insert into learn.module values ('m1', 'k1', null), ('m2', 'k2', null);
insert into learn.question values
    ('q1', 'm1', 'APPROVED', null), ('q2', 'm1', 'APPROVED', null), ('q3', 'm2', 'APPROVED', null);
insert into learn.users values
    ('u1', 'Ann', 'c1', null, null), ('u2', 'Bob', 'c1', null, null), ('u3', 'Cid', 'c2', null, null),
    ('u4', 'Left', 'c1', 1700000004000, null), ('u5', 'Alone', null, null, null);
insert into learn."userProgress" values
    ('p1', 'u1', 'k1', 'q1', '["a"]', '[]', false, true, 1, 1700000005500, null),
    ('p2', 'u1', 'k1', 'q2', '[]', '["b", "c"]', false, false, 1, 1700000006000, null),
    ('p3', 'u2', 'k1', 'q1', '[]', '[]', true, false, 0, null, null),
    ('p4', 'u2', 'k1', 'q2', '["a"]', '[]', false, true, 2, 1700000007000, 1700000008000);
"""

# A social-impact platform's users.
PLATFORM = """
create table public.users (
    id uuid primary key default gen_random_uuid(), email varchar(255) not null unique, role varchar(50) not null,
    first_name varchar(100), last_name varchar(100), created_at timestamptz not null default now()
);
insert into public.users (id, email, role, first_name, last_name) values
    ('00000000-0000-0000-0000-000000000001', 'Ann@example.org', 'participant', 'Ann', 'Lee'),
    ('00000000-0000-0000-0000-000000000002', 'bob@example.org', 'volunteer', 'Bob', null);
"""

# A gym application: UUIDs, row-level security on every table, a row trigger that sets `updated_at`.
GYM = """
create table public.gyms (id uuid primary key, name text not null);
create table public.users (id uuid primary key, gym_id uuid references public.gyms, role text not null);
create table public.members (
    id uuid primary key, gym_id uuid not null references public.gyms, first_name text not null, last_name text not null,
    joined_date date not null, last_visit_date date,
    status text not null check (status in ('active', 'inactive', 'cancelled')),
    churn_risk_score integer, churn_risk_level text, commitment_score integer,
    updated_at timestamptz not null default '2020-01-01'
);
create table public.member_activities (
    id uuid primary key default gen_random_uuid(),
    member_id uuid not null references public.members on delete cascade, activity_date date not null,
    activity_type text not null check (activity_type in ('visit', 'check_in')),
    created_at timestamptz not null default now()
);
create table public.member_coaches (
    coach_id uuid references public.users, member_id uuid references public.members, primary key (coach_id, member_id)
);
create table public.writes (member_id uuid not null);
create function public.touch() returns trigger language plpgsql as $$
begin
    insert into public.writes values (new.id);
    new.updated_at := now();
    return new;
end $$;
create trigger touch before update on public.members for each row execute function public.touch();
alter table public.gyms enable row level security;
alter table public.users enable row level security;
alter table public.members enable row level security;
alter table public.member_activities enable row level security;
alter table public.member_coaches enable row level security;
create policy own on public.members using (gym_id::text = current_setting('app.gym', true));
insert into public.gyms values
    ('a0000000-0000-0000-0000-000000000000', 'Alpha'), ('b0000000-0000-0000-0000-000000000000', 'Beta');
insert into public.users values
    ('c0000000-0000-0000-0000-000000000001', 'a0000000-0000-0000-0000-000000000000', 'coach'),
    ('c0000000-0000-0000-0000-000000000002', 'b0000000-0000-0000-0000-000000000000', 'owner');
insert into public.members (id, gym_id, first_name, last_name, joined_date, status)
select m::uuid, g::uuid, f, l, '2025-01-01', s from (values
    ('10000000-0000-0000-0000-000000000001', 'a0000000-0000-0000-0000-000000000000', 'Ann', 'A', 'active'),
    ('10000000-0000-0000-0000-000000000002', 'a0000000-0000-0000-0000-000000000000', 'Bob', 'B', 'active'),
    ('10000000-0000-0000-0000-000000000003', 'b0000000-0000-0000-0000-000000000000', 'Cid', 'C', 'cancelled')
) as v (m, g, f, l, s);
insert into public.member_activities (member_id, activity_date, activity_type) values
    ('10000000-0000-0000-0000-000000000001', '2026-01-05', 'visit'),
    ('10000000-0000-0000-0000-000000000001', '2026-01-05', 'check_in'),
    ('10000000-0000-0000-0000-000000000001', '2026-02-01', 'visit'),
    ('10000000-0000-0000-0000-000000000003', '2026-01-07', 'visit');
insert into public.member_coaches values
    ('c0000000-0000-0000-0000-000000000001', '10000000-0000-0000-0000-000000000001');
"""
MONTHS = """
create schema attendance;
create table attendance.member_months (
    gym_id uuid not null, member_id uuid not null, month date not null, visits integer not null,
    primary key (member_id, month)
);
"""
