"""A type whose name is taken."""

from dagster_backfills import job_type


@job_type(name="mux_upload")
def upload(job):
    """Never called."""
