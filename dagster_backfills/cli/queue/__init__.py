"""`backfills queue`: what background jobs have beyond the verbs of every backfill."""
