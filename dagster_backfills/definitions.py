"""The code location: everything below `defs/` except disabled domains. Each run executes in one process."""

import warnings
from pathlib import Path
from typing import Any

import dagster as dg

from dagster_backfills.dagster.catalog import catalog_of
from dagster_backfills.dagster.project import OURS, mistakes_set_aside
from dagster_backfills.dagster.sources import with_sources
from dagster_backfills.domain_switches import disabled_domains


@dg.definitions
def defs() -> dg.Definitions:
    with warnings.catch_warnings():
        # We use beta features on purpose and pin Dagster's version. Their warnings would repeat at every load.
        for kind in (dg.BetaWarning, dg.PreviewWarning):
            warnings.simplefilter("ignore", kind)
        return _loaded()


def _loaded() -> dg.Definitions:
    tree, off = dg.ComponentTree.for_project(OURS), disabled_domains()
    entries = [at for at in sorted(OURS.iterdir()) if _is_loaded(at, off)] if off else [None]
    with mistakes_set_aside():
        loaded = dg.Definitions.merge(*(tree.build_defs(entry) for entry in entries))
    everything = with_sources(loaded, catalog_of(OURS)).map_asset_specs(func=_with_owner)
    # The database does the work. A process per step would cost five seconds each and gain nothing.
    shared = dg.Definitions(jobs=[_observation_job(everything)], executor=dg.in_process_executor)
    return dg.Definitions.merge(everything, shared)


def _observation_job(everything: dg.Definitions) -> Any:
    """A job that observes all observable assets at once. The automation sensor does the same every hour."""
    observed = [
        key
        for asset in everything.assets or ()
        if isinstance(asset, dg.AssetsDefinition) and asset.is_observable
        for key in asset.keys
    ]
    return dg.define_asset_job(
        "observe_sources",
        selection=dg.AssetSelection.assets(*observed),
        description="Observe all source tables, files and queues: row counts and the time of the last change.",
        tags={"backfills/domain": "operations"},
    )


def _with_owner(spec: dg.AssetSpec) -> dg.AssetSpec:
    """The asset owned by its domain's team and tagged with its domain."""
    domain = spec.key.path[0]
    return spec.replace_attributes(
        owners=spec.owners or [f"team:{domain}"], tags={"backfills/domain": domain, **spec.tags}
    )


def _is_loaded(entry: Path, off: frozenset[str]) -> bool:
    """Whether to load an entry of `defs/`. An entry belongs to the domain whose name it starts with."""
    is_code = entry.is_dir() or entry.suffix == ".py"
    return is_code and not entry.name.startswith("_") and entry.stem.partition("_")[0] not in off
