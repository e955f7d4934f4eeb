"""The process in which a run works that the command line launched. Talks to its parent by a file and its end."""

import importlib
import json
import sys
from pathlib import Path
from typing import Any

import dagster as dg

from dagster_backfills.cli.errors import explain
from dagster_backfills.lib.errors import UserError
from dagster_backfills.lib.locked_file import locked_file
from dagster_backfills.lib.redact import redact


def load_job(module: str, job_name: str) -> dg.JobDefinition:
    """A job of the code location in `module`. Dagster calls this again in each process that runs its steps."""
    definitions: dg.Definitions = importlib.import_module(module).defs()
    jobs = sorted(job.name for job in definitions.resolve_all_job_defs())
    if job_name not in jobs:
        raise UserError(f"There is no job {job_name!r}.", f"There are {', '.join(jobs) or 'none'}.")
    return definitions.resolve_job_def(job_name)


def main() -> int:
    """Execute what stdin asks for. What goes wrong before there is a run is written to the file `problem`."""
    request: dict[str, Any] = json.load(sys.stdin)
    with locked_file(Path(request["lock"])):
        try:
            arguments: Any = (request["module"], request["job"])
            job = dg.build_reconstructable_job("dagster_backfills.cli.worker", "load_job", arguments)
            with dg.DagsterInstance.get() as instance:
                result = dg.execute_job(
                    job,
                    instance,
                    run_config=request["run_config"],
                    tags=request["tags"],
                    raise_on_error=False,
                )
                return 0 if result.success else 1
        except Exception as error:
            Path(request["problem"]).write_text(json.dumps(_problem(error)))
            raise


def _problem(error: Exception) -> dict[str, Any]:
    if isinstance(error, dg.DagsterInvalidConfigError):
        return {"code": 2, "message": redact(str(error)), "hint": ""}
    code, message, hint = explain(error)
    return {"code": code, "message": message, "hint": hint}


if __name__ == "__main__":
    sys.exit(main())
