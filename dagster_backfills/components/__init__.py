"""The component `PostgresBackfill`, which turns a declared backfill into Dagster definitions.

The schema of a declaration is in `engine/declared/`. Here, each module uses those above it:

    partitions          Dagster's definition of the declared partitions
    backfill            one declaration with its statements: writes, partitions, their status, rules
    inspection          mistakes that only the database can reveal
    assets              the assets and views
    refresh             the job that writes partitions, its sensors and its schedule
    planning, undoing, controlling   the jobs that plan, undo, and set controls
    postgres_backfill   the component, which combines all of these
    loading             loading declarations for commands and web pages, outside of Dagster
    cataloguing         the tables of a project, for Dagster's catalog
"""
