"""Source tables, read by backfills and filled elsewhere: their assets in the lineage, and hourly observations.

Not here: their descriptions and columns (`catalog`).
"""

from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import dagster as dg
import psycopg

from dagster_backfills.dagster.catalog import OTHER_DATABASE, Catalog
from dagster_backfills.dagster.checks import periodically
from dagster_backfills.postgres.statements import load_statements

_STATEMENTS = load_statements(Path(__file__).with_name("sources.sql"))
_CHANGED = "dagster/last_updated_timestamp"
# The engine inserts a row for every batch, in the batch's transaction, so all tables that it writes are upstream.
_ACCOUNT = "backfill.batches"


def with_sources(defs: dg.Definitions, catalog: Catalog) -> dg.Definitions:
    """The definitions, plus an asset for each table and view of the catalog that their assets read.

    The catalog describes DATABASE_URL. Tables that are read from another database get no asset.
    """
    specs = list(specs_of(defs))
    known, added = {spec.key for spec in specs}, list[dg.AssetSpec]()
    written: dict[str, Any] = {"deps": [spec.key for spec in specs if "write_mode" in spec.metadata]}
    specs = [spec for spec in specs if OTHER_DATABASE not in spec.metadata]
    while new := {dep.asset_key for spec in specs for dep in spec.deps} - known:
        known |= new
        tables = sorted(".".join(key.path) for key in new)
        specs = [
            catalog.spec(table, **(written if table == _ACCOUNT else {}))
            for table in tables
            if table in catalog.tables
        ]
        added += specs
    tables_only = [spec for spec in added if not spec.is_virtual]
    observed = {
        "source_tables": [spec for spec in tables_only if not spec.deps],
        "account_tables": [spec for spec in tables_only if spec.deps],
    }
    assets: list[Any] = [spec for spec in added if spec.is_virtual]
    assets += [observed_tables(name, group) for name, group in observed.items() if group]
    return dg.Definitions.merge(defs, dg.Definitions(assets=assets))


def specs_of(defs: dg.Definitions) -> Iterator[dg.AssetSpec]:
    """The specs of all assets."""
    for asset in defs.assets or ():
        if isinstance(asset, dg.AssetSpec):
            yield asset
        elif isinstance(asset, dg.AssetsDefinition):
            yield from asset.specs


def observed_tables(name: str, specs: Sequence[dg.AssetSpec]) -> dg.AssetsDefinition:
    """Observable assets for tables of DATABASE_URL that Dagster does not fill. They are observed once an hour."""
    tables = {spec.key: str(spec.metadata["dagster/table_name"]) for spec in specs}
    hourly = periodically("7 * * * *")

    @dg.multi_observable_source_asset(
        name=name,
        specs=[spec.replace_attributes(automation_condition=hourly) for spec in specs],
        can_subset=True,
        required_resource_keys={"postgres"},
        description="Row counts and the time of the last change, from Postgres' statistics.",
    )
    def observe(context: dg.AssetExecutionContext) -> Iterator[dg.ObserveResult]:
        with context.resources.postgres.connect() as conn:
            # In the order of the specs, because Dagster requires upstream assets first.
            for key in [each for each in tables if each in context.selected_asset_keys]:
                metadata = statistics(conn, tables[key], _latest_observation(context.instance, key))
                if metadata:
                    yield dg.ObserveResult(key, metadata=metadata)

    return observe


def statistics(conn: psycopg.Connection[Any], table: str, previous: Mapping[str, Any]) -> dict[str, Any]:
    """Observation metadata of a table, from Postgres' statistics. Does not read the table itself.

    previous: the previous observation's metadata. If the number of changed rows differs, the table has changed since.
    """
    schema, _, name = table.partition(".")
    row = _STATEMENTS.statistics(conn, schema=schema, name=name)
    if row is None:
        return {}
    rows, changes = row
    metadata: dict[str, Any] = {"rows_changed": changes}
    if rows >= 0:  # negative: the table has never been analyzed
        metadata["dagster/row_count"] = rows
    changed = previous and previous.get("rows_changed") != changes
    if last := datetime.now(UTC).timestamp() if changed else previous.get(_CHANGED):
        metadata[_CHANGED] = dg.MetadataValue.timestamp(last)
    return metadata


def _latest_observation(instance: dg.DagsterInstance, key: dg.AssetKey) -> dict[str, Any]:
    records = instance.fetch_observations(key, limit=1).records
    observation = records[0].asset_observation if records else None
    return {name: value.value for name, value in observation.metadata.items()} if observation else {}
