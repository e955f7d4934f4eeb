"""The Celery app for the workers: `celery -A dagster_backfills.instance.celery.app worker`.

The broker and the result backend are the Redis at CELERY_BROKER_URL. Not here: sending runs (`launcher`).
"""

import os
from typing import Any

from dagster_celery.make_app import make_app
from dagster_celery.tasks import create_execute_job_task, create_resume_job_task

SETTINGS: dict[str, Any] = {
    # A worker accepts a run only when it has a free process. It does not prefetch.
    "task_acks_late": True,
    "worker_prefetch_multiplier": 1,
    # Unacknowledged tasks are delivered again after a day, so that this is rare. Dagster ignores a second worker, so
    # no run is executed twice.
    "broker_transport_options": {"visibility_timeout": 24 * 3600},
    "result_backend_transport_options": {"visibility_timeout": 24 * 3600},
    # Run monitoring treats a run without a result as lost, so results must outlive the longest run.
    "result_expires": 30 * 24 * 3600,
    # Replace a worker process after this many runs, to release its memory.
    "worker_max_tasks_per_child": 100,
    "broker_connection_retry_on_startup": True,
}


def broker_url() -> str:
    """CELERY_BROKER_URL, else the Redis on this machine."""
    return os.environ.get("CELERY_BROKER_URL", "").strip() or "redis://127.0.0.1:6379/0"


app = make_app({"broker": broker_url(), "backend": broker_url()})
app.conf.update(SETTINGS, task_default_queue="dagster")

execute_job = create_execute_job_task(app)
resume_job = create_resume_job_task(app)
