"""A backfill declared in `defs.yaml` and `queries.sql`: its attributes, their validation, and a generated draft.

Start with `declaration`. Not here: the Dagster definitions built from it (`components/`).
"""
