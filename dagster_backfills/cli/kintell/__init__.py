"""`backfills kintell`: commands for session imports."""
