"""A type whose name is taken."""

from dagster_backfills.domains.queue.registry import job_type


@job_type(name="mux_upload")
def upload(job):
    """Never called."""
