"""The HTTP API and the web pages. Both are thin: anything that takes time is launched as a Dagster run."""
