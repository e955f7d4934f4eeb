"""`backfills kintell`: what imports have beyond the verbs of every backfill."""
