"""Launching a job of the code location from the command line, as a run that the instance knows and the UI shows.

The run works in a process of its own; this one watches it, cancels it, and sees to it that it ends in the
instance as well, whatever becomes of the process.
"""

import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dagster_backfills.cli import errors
from dagster_backfills.cli.follow import follow_run
from dagster_backfills.cli.launched import LAUNCHED_BY, LaunchedRun, lock_tag, locks_dir
from dagster_backfills.lib.dagster_home import dagster_environment
from dagster_backfills.lib.locked_file import LOCK_TAG, lock_holder
from dagster_backfills.lib.postgres.migrations import require_migrations

if TYPE_CHECKING:
    import dagster as dg

CODE_LOCATION = "dagster_backfills.definitions"

Watch = Callable[[str, Callable[[], bool]], object]


def run_job(
    job_name: str,
    run_config: Mapping[str, Any] | None = None,
    tags: Mapping[str, str] | None = None,
    *,
    module: str = CODE_LOCATION,
    watch: Watch | None = None,
) -> "dg.DagsterRun":
    """Run a job to its end and return the run as the instance has it then.

    `watch(run_id, ended)` is called when the run is known and returns when `ended()` is true; without it the
    progress is shown on stderr. Ctrl-C cancels the run: it ends as CANCELED and KeyboardInterrupt goes on.
    Raises UserError for an unknown job or a configuration that the job does not take.
    """
    os.environ.update(dagster_environment())
    require_migrations(os.environ["DATABASE_URL"])
    import dagster as dg

    with dg.DagsterInstance.get() as instance:
        fail_runs_of_dead_processes(instance)
        launch = LaunchedRun(instance, job_name, module)
        try:
            run_id = launch.start(run_config or {}, tags or {})
            if watch is None:
                follow_run(os.environ["DATABASE_URL"], run_id, launch.has_ended)
            else:
                watch(run_id, launch.has_ended)
            return launch.finish()
        except BaseException:
            launch.cancel()
            raise


def exit_code(run: "dg.DagsterRun") -> int:
    """The command line's exit code for a run that has ended."""
    return {"SUCCESS": errors.OK, "CANCELED": errors.INTERRUPTED}.get(run.status.value, errors.FAILURES)


def fail_runs_of_dead_processes(instance: "dg.DagsterInstance") -> list[str]:
    """End in the instance the runs launched from here whose process and parent were both killed; their ids."""
    import dagster as dg

    alive = [dg.DagsterRunStatus[name] for name in ("NOT_STARTED", "STARTING", "STARTED", "CANCELING")]
    found = instance.get_runs(dg.RunsFilter(statuses=alive, tags=LAUNCHED_BY))
    prefix = f"{lock_tag(locks_dir())}/"
    ended = []
    for run in found:
        tag = run.tags.get(LOCK_TAG, "")
        lock = Path(tag.partition(":")[2])
        if not tag.startswith(prefix) or lock_holder(lock) is not None:
            continue
        # Read again: it may have ended well before it let go of the lock.
        now = instance.get_run_by_id(run.run_id)
        if now is not None and not now.is_finished:
            instance.report_run_failed(now, "The process of this run was killed.")
            ended.append(run.run_id)
        lock.unlink(missing_ok=True)
    return ended
