-- Domain 2: precomputed cohort and user statistics.

-- Source tables.
create table progress.schools (
    id text primary key,
    name text not null
);
create table progress.cohorts (
    id text primary key,
    school_id text not null references progress.schools,
    name text not null,
    created_at timestamptz not null default now()
);
create index cohorts_school_id_idx on progress.cohorts (school_id);
create table progress.users (
    id text primary key,
    cohort_id text not null references progress.cohorts on delete cascade,
    name text not null,
    email text not null,
    deleted_at timestamptz
);
create index users_cohort_id_idx on progress.users (cohort_id, id) where deleted_at is null;
create index users_cohort_id_all_idx on progress.users (cohort_id);
create table progress.classes (
    id text primary key,
    cohort_id text not null references progress.cohorts on delete cascade
);
create index classes_cohort_id_idx on progress.classes (cohort_id);
create table progress.modules (
    id text primary key,
    class_id text not null references progress.classes on delete cascade
);
create index modules_class_id_idx on progress.modules (class_id);
create table progress.questions (
    id text primary key,
    module_id text not null references progress.modules on delete cascade
);
create index questions_module_id_idx on progress.questions (module_id);
create table progress.user_progress (
    user_id text not null references progress.users on delete cascade,
    question_id text not null references progress.questions on delete cascade,
    class_id text not null references progress.classes on delete cascade,
    selected_options text[] not null default '{}',
    eliminated_options text[] not null default '{}',
    is_mastered boolean not null default false,
    last_attempt_at timestamptz,
    primary key (user_id, question_id)
);
create index user_progress_class_id_idx on progress.user_progress (class_id);
create index user_progress_question_id_idx on progress.user_progress (question_id);

-- Targets. Fill factors leave room on the page, so that a rewritten row stays on it (a HOT update).
create table progress.user_progress_stats (
    user_id text primary key references progress.users on delete cascade,
    cohort_id text not null references progress.cohorts on delete cascade,
    questions_interacted integer not null check (questions_interacted >= 0),
    questions_mastered integer not null check (questions_mastered >= 0),
    total_questions integer not null check (total_questions >= 0),
    last_activity_at timestamptz,
    updated_at timestamptz not null default now()
) with (fillfactor = 45);
-- The dashboard's read: the students of a cohort, one indexed range.
create index user_progress_stats_cohort_id_idx on progress.user_progress_stats (cohort_id, user_id);

create table progress.cohort_stats (
    cohort_id text primary key references progress.cohorts on delete cascade,
    total_students integer not null check (total_students >= 0),
    total_questions integer not null check (total_questions >= 0),
    total_modules integer not null check (total_modules >= 0),
    average_completion integer not null check (average_completion >= 0),
    updated_at timestamptz not null default now()
) with (fillfactor = 45);
