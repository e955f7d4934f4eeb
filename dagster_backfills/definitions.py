"""The code location: everything below `defs/`, each run in one process."""

from pathlib import Path

import dagster as dg


@dg.definitions
def defs() -> dg.Definitions:
    everything = dg.load_from_defs_folder(path_within_project=Path(__file__).parent)
    # The database does the work: a process a step would cost five seconds each and save nothing.
    return dg.Definitions.merge(everything, dg.Definitions(executor=dg.in_process_executor))
