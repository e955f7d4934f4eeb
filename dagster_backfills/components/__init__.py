"""The component `PostgresBackfill`: what Dagster makes of a declared backfill. Wiring; what it wires is elsewhere.

What a declaration says stands in `engine/declared/`. Here, from the bottom up:

    partitions          the declared partitions as Dagster has them
    backfill            one declaration at work: its writes, partitions, standings, rules
    inspection          its mistakes that only the database sees
    assets              the assets and views
    refresh, planning   the job that finds work, sensors and schedule; the job that plans
    postgres_backfill   the component, which puts all of these together
    loading             declarations for commands and pages, outside of Dagster's loading
"""
