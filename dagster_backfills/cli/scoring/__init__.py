"""`backfills scoring`: what scoring has beyond the verbs of every backfill."""
