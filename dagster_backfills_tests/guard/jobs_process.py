"""Runs of the code location's jobs in one process, on the instance that the environment names, some of which fail.

Standard input has them as JSON: a list of job and run config. Prints each job and whether it succeeded.
"""

import json
import sys
import traceback

import dagster as dg

from dagster_backfills.definitions import defs


def main() -> None:
    location = defs()
    with dg.DagsterInstance.get() as instance:
        for name, config in json.load(sys.stdin):
            job = location.resolve_job_def(name)
            try:
                result = job.execute_in_process(run_config=config, instance=instance, raise_on_error=False)
                sys.stdout.write(f"{name} {result.success}\n")
            except Exception:
                traceback.print_exc()
                sys.stdout.write(f"{name} {False}\n")


if __name__ == "__main__":
    main()
