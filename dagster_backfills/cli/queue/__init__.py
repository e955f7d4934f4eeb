"""`backfills queue`: commands for background jobs."""
