"""The Celery app of the workers: `celery -A dagster_backfills.instance.celery.app worker`. Not here: who sends runs.

The broker and the results are in Redis, at CELERY_BROKER_URL.
"""

import os
from typing import Any

from dagster_celery.make_app import make_app
from dagster_celery.tasks import create_execute_job_task, create_resume_job_task

SETTINGS: dict[str, Any] = {
    # A worker takes a run when it has a free process, and not one more to keep for later.
    "task_acks_late": True,
    "worker_prefetch_multiplier": 1,
    # What is not acknowledged within this long is handed out again. A run that started elsewhere is not started
    # twice: Dagster ignores the second worker. A day, so that this seldom comes to be.
    "broker_transport_options": {"visibility_timeout": 24 * 3600},
    "result_backend_transport_options": {"visibility_timeout": 24 * 3600},
    # Where the result is gone, run monitoring takes the run for lost. Longer than any run takes.
    "result_expires": 30 * 24 * 3600,
    # A process of a worker begins anew after this many runs, and gives its memory back.
    "worker_max_tasks_per_child": 100,
    "broker_connection_retry_on_startup": True,
}


def broker_url() -> str:
    """CELERY_BROKER_URL, else the Redis of this machine."""
    return os.environ.get("CELERY_BROKER_URL", "").strip() or "redis://127.0.0.1:6379/0"


app = make_app({"broker": broker_url(), "backend": broker_url()})
app.conf.update(SETTINGS, task_default_queue="dagster")

execute_job = create_execute_job_task(app)
resume_job = create_resume_job_task(app)
