"""The doors: HTTP for programs and pages for people, beside Dagster's UI. Thin: what takes time is a Dagster run."""
