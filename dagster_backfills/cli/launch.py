"""Launching a job of the code location from the command line, as a run like all others: the UI shows it.

The run works in a process of its own; this one watches it, cancels it, and sees to it that it ends in the
instance as well, whatever becomes of the process.
"""

import importlib
import os
import warnings
from collections.abc import Callable, Mapping
from typing import Any

import dagster as dg
from pydantic import ValidationError

from dagster_backfills.cli import errors
from dagster_backfills.cli.follow import follow_run
from dagster_backfills.cli.run_process import RunProcess
from dagster_backfills.dagster.launchpad import in_words
from dagster_backfills.dagster.private import origin_in_location
from dagster_backfills.errors import UserError
from dagster_backfills.instance.dagster_home import dagster_environment
from dagster_backfills.postgres.migrations import require_migrations

CODE_LOCATION = "dagster_backfills.definitions"  # its name too, in every workspace.yaml
LAUNCHED_BY = {"backfills/launched_by": "command line"}

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
        run = create_run(instance, module, job_name, run_config or {}, tags or {})
        with RunProcess(instance, run) as process:
            if watch is None:
                follow_run(os.environ["DATABASE_URL"], run.run_id, process.has_ended)
            else:
                watch(run.run_id, process.has_ended)
            return process.finish()


def create_run(
    instance: dg.DagsterInstance,
    module: str,
    job_name: str,
    run_config: Mapping[str, Any],
    tags: Mapping[str, str],
) -> dg.DagsterRun:
    """Record a run of a job of the code location in `module`, as the location's own."""
    job = load_job(module, job_name)
    arguments: Any = (module, job_name)
    try:
        return instance.create_run_for_job(
            job,
            run_config=run_config,
            tags={**tags, **LAUNCHED_BY},
            remote_job_origin=origin_in_location(module, "__repository__", job_name),
            job_code_origin=dg.build_reconstructable_job(__name__, "load_job", arguments).get_python_origin(),
        )
    except dg.DagsterInvalidConfigError as error:
        raise UserError(str(error)) from error
    except dg.DagsterUserCodeExecutionError as error:  # a field whose value the job's own model refuses
        if not isinstance(error.__cause__, ValidationError):
            raise
        raise UserError(f"{job_name}: {in_words(error.__cause__)}.") from error


def load_job(module: str, job_name: str) -> dg.JobDefinition:
    """A job of the code location in `module`. Dagster calls this again in each process that works on its run."""
    with warnings.catch_warnings():  # Dagster's own, about what is in beta
        warnings.simplefilter("ignore")
        definitions: dg.Definitions = importlib.import_module(module).defs()
        jobs = sorted(job.name for job in definitions.resolve_all_job_defs())
        if job_name not in jobs:
            raise UserError(f"There is no job {job_name!r}.", f"There are {', '.join(jobs) or 'none'}.")
        return definitions.resolve_job_def(job_name)


def exit_code(run: dg.DagsterRun) -> int:
    """The command line's exit code for a run that has ended."""
    return {"SUCCESS": errors.OK, "CANCELED": errors.INTERRUPTED}.get(run.status.value, errors.FAILURES)
