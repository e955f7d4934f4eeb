"""The code location: everything below `defs/`, without the domains that are switched off, each run in one process."""

import warnings
from pathlib import Path
from typing import Any

import dagster as dg

from dagster_backfills.dagster.catalog import catalog_of
from dagster_backfills.dagster.project import OURS, mistakes_set_aside
from dagster_backfills.dagster.sources import with_sources
from dagster_backfills.domain_switches import switched_off


@dg.definitions
def defs() -> dg.Definitions:
    with warnings.catch_warnings():
        # What Dagster calls beta is chosen, and pinned: said at each load, it would bury all else.
        for kind in (dg.BetaWarning, dg.PreviewWarning):
            warnings.simplefilter("ignore", kind)
        return _loaded()


def _loaded() -> dg.Definitions:
    tree, off = dg.ComponentTree.for_project(OURS), switched_off()
    entries = [at for at in sorted(OURS.iterdir()) if _is_loaded(at, off)] if off else [None]
    with mistakes_set_aside():
        loaded = dg.Definitions.merge(*(tree.build_defs(entry) for entry in entries))
    everything = with_sources(loaded, catalog_of(OURS)).map_asset_specs(func=_with_owner)
    # The database does the work: a process a step would cost five seconds each and save nothing.
    around = dg.Definitions(jobs=[_observing(everything)], executor=dg.in_process_executor)
    return dg.Definitions.merge(everything, around)


def _observing(everything: dg.Definitions) -> Any:
    """A job for what the automation does by itself, every hour: look at all that others fill."""
    observed = [
        key
        for asset in everything.assets or ()
        if isinstance(asset, dg.AssetsDefinition) and asset.is_observable
        for key in asset.keys
    ]
    return dg.define_asset_job(
        "observe_sources",
        selection=dg.AssetSelection.assets(*observed),
        description="Look at the tables, files and queues that others fill: rows, and when they changed last.",
        tags={"backfills/domain": "operations"},
    )


def _with_owner(spec: dg.AssetSpec) -> dg.AssetSpec:
    """Each domain is a team's, and its assets are found by its tag."""
    domain = spec.key.path[0]
    return spec.replace_attributes(
        owners=spec.owners or [f"team:{domain}"], tags={"backfills/domain": domain, **spec.tags}
    )


def _is_loaded(entry: Path, off: frozenset[str]) -> bool:
    """Whether an entry of `defs/` is loaded: what begins with a domain's name is the domain's."""
    is_code = entry.is_dir() or entry.suffix == ".py"
    return is_code and not entry.name.startswith("_") and entry.stem.partition("_")[0] not in off
