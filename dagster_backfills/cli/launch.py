"""Launching a job of the code location from the command line, as a run like all others: the UI shows it.

The run works in a process of its own; this one watches it, cancels it, and sees to it that it ends in the
instance as well, whatever becomes of the process.
"""

import os
from collections.abc import Callable, Mapping
from typing import Any

import dagster as dg

from dagster_backfills.cli import errors
from dagster_backfills.cli.follow import follow_run
from dagster_backfills.cli.run_process import RunProcess
from dagster_backfills.engine import audit
from dagster_backfills.identity import system_user, user_tags
from dagster_backfills.instance.dagster_home import dagster_environment
from dagster_backfills.instance.launching import CODE_LOCATION, LAUNCHED_BY, create_run
from dagster_backfills.postgres.connection import connect
from dagster_backfills.postgres.migrations import require_migrations

Watch = Callable[[str, Callable[[], bool]], object]


def run_job(
    job_name: str,
    run_config: Mapping[str, Any] | None = None,
    tags: Mapping[str, str] | None = None,
    *,
    module: str = CODE_LOCATION,
    watch: Watch | None = None,
) -> dg.DagsterRun:
    """Run a job to its end and return the run as the instance has it then.

    `watch(run_id, ended)` is called when the run is known and returns when `ended()` is true; without it the
    progress is shown on stderr. Ctrl-C cancels the run: it ends as CANCELED and KeyboardInterrupt goes on.
    Raises UserError for an unknown job or a configuration that the job does not take.
    """
    os.environ.update(dagster_environment())
    require_migrations(os.environ["DATABASE_URL"])
    with dg.DagsterInstance.get() as instance:
        told = {LAUNCHED_BY: "command line", **user_tags(system_user())}
        run = create_run(instance, module, job_name, run_config or {}, {**(tags or {}), **told})
        _note_launch(run)
        with RunProcess(instance, run) as process:
            if watch is None:
                follow_run(os.environ["DATABASE_URL"], run.run_id, process.has_ended)
            else:
                watch(run.run_id, process.has_ended)
            return process.finish()


def _note_launch(run: dg.DagsterRun) -> None:
    """Enter who launched it, before it begins."""
    domain = run.tags.get("backfills/domain")
    entry = audit.Entry(
        system_user(), "launch", run.job_name, [domain] if domain else None, "started", [run.run_id]
    )
    with connect(os.environ["DATABASE_URL"]) as conn:
        audit.record(conn, entry)
        conn.commit()


def exit_code(run: dg.DagsterRun) -> int:
    """The command line's exit code for a run that has ended."""
    return {"SUCCESS": errors.OK, "CANCELED": errors.INTERRUPTED}.get(run.status.value, errors.FAILURES)
