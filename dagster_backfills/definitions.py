"""The code location: everything below `defs/`, without the domains that are switched off, each run in one process."""

from pathlib import Path

import dagster as dg

from dagster_backfills.domain_switches import switched_off

_DEFS = Path(__file__).parent / "defs"


@dg.definitions
def defs() -> dg.Definitions:
    tree, off = dg.ComponentTree.for_project(_DEFS), switched_off()
    entries = [at for at in sorted(_DEFS.iterdir()) if _is_loaded(at, off)] if off else [None]
    everything = [tree.build_defs(entry) for entry in entries]
    # The database does the work: a process a step would cost five seconds each and save nothing.
    return dg.Definitions.merge(*everything, dg.Definitions(executor=dg.in_process_executor))


def _is_loaded(entry: Path, off: frozenset[str]) -> bool:
    """Whether an entry of `defs/` is loaded: what begins with a domain's name is the domain's."""
    return not entry.name.startswith("_") and entry.stem.partition("_")[0] not in off
