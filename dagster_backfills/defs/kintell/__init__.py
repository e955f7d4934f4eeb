"""Historical session import from CSV: files, rules, jobs, events. Nothing here is used by another domain."""
