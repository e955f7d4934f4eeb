#!/bin/sh
# Creates the logins of this deployment, with passwords from files. Runs once, after roles.sql, when the database is created.
set -eu
psql -v ON_ERROR_STOP=1 -qX --username "$POSTGRES_USER" --dbname "$POSTGRES_DB" \
    -v migrator="$(cat "$MIGRATOR_PASSWORD_FILE")" \
    -v runs="$(cat "$RUNS_PASSWORD_FILE")" <<'SQL'
create role backfills_migrator login password :'migrator' in role backfills_owner;
-- Whatever this login creates belongs to the owner role.
alter role backfills_migrator set role = backfills_owner;
create role backfills_runs login password :'runs' in role backfills_writer;
SQL
