"""Runs jobs of the code location in one process, on the environment's instance; some of them fail.

Standard input is JSON: a list of jobs and run configs. Prints each job and whether it succeeded.
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
