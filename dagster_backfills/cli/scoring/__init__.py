"""`backfills scoring`: commands that only scoring has."""
