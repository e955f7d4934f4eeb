"""A backfill as somebody declares it in a `defs.yaml` and a `queries.sql`: its words, its mistakes, its first draft.

Read `declaration`, then `validation`, then `draft`. Not here: what Dagster makes of it (`components/`).
"""
