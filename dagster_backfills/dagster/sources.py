"""Tables that are read and that nothing here fills: in the lineage with their columns, and looked at now and then.

Not here: what is known of them without a look (`catalog`).
"""

from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import dagster as dg
import psycopg

from dagster_backfills.dagster.catalog import Catalog
from dagster_backfills.dagster.checks import periodically
from dagster_backfills.postgres.statements import load_statements

_STATEMENTS = load_statements(Path(__file__).with_name("sources.sql"))
_CHANGED = "dagster/last_updated_timestamp"
# Every batch is entered in it, in the transaction of its rows: it stands behind all that the engine writes.
_ACCOUNT = "backfill.batches"


def with_sources(defs: dg.Definitions, catalog: Catalog, *, database: str = "postgres") -> dg.Definitions:
    """The definitions, and an asset for each table and view of the catalog that they read and do not have.

    database: the key of the resource that is the database.
    """
    specs = list(specs_of(defs))
    there, found = {spec.key for spec in specs}, list[dg.AssetSpec]()
    written: dict[str, Any] = {"deps": [spec.key for spec in specs if "write_mode" in spec.metadata]}
    while new := {dep.asset_key for spec in specs for dep in spec.deps} - there:
        there |= new
        tables = sorted(".".join(key.path) for key in new)
        specs = [
            catalog.spec(table, **(written if table == _ACCOUNT else {}))
            for table in tables
            if table in catalog.tables
        ]
        found += specs
    around: list[Any] = [spec for spec in found if spec.is_virtual]
    plain = [spec for spec in found if not spec.is_virtual]
    apart = {
        "source_tables": [spec for spec in plain if not spec.deps],
        "account_tables": [spec for spec in plain if spec.deps],
    }
    around += [observed_tables(name, group, database) for name, group in apart.items() if group]
    return dg.Definitions.merge(defs, dg.Definitions(assets=around))


def specs_of(defs: dg.Definitions) -> Iterator[dg.AssetSpec]:
    """Of all assets."""
    for asset in defs.assets or ():
        if isinstance(asset, dg.AssetSpec):
            yield asset
        elif isinstance(asset, dg.AssetsDefinition):
            yield from asset.specs


def observed_tables(
    name: str, specs: Sequence[dg.AssetSpec], database: str = "postgres"
) -> dg.AssetsDefinition:
    """Tables that something else than Dagster fills, looked at once an hour: rows, changes, the time of the last."""
    tables = {spec.key: str(spec.metadata["dagster/table_name"]) for spec in specs}
    hourly = periodically("7 * * * *")

    @dg.multi_observable_source_asset(
        name=name,
        specs=[spec.replace_attributes(automation_condition=hourly) for spec in specs],
        can_subset=True,
        required_resource_keys={database},
        description="How many rows the tables have and when they changed last, by Postgres' own statistics.",
    )
    def observe(context: dg.AssetExecutionContext) -> Iterator[dg.ObserveResult]:
        with getattr(context.resources, database).connect() as conn:
            # In the order of the specs: Dagster wants what is upstream first.
            for key in [each for each in tables if each in context.selected_asset_keys]:
                seen = look(conn, tables[key], _newest(context.instance, key))
                if seen:
                    yield dg.ObserveResult(key, metadata=seen)

    return observe


def look(conn: psycopg.Connection[Any], table: str, before: Mapping[str, Any]) -> dict[str, Any]:
    """What Postgres' statistics say of a table: nothing is read of the table itself.

    before: what the last look said. Where the count of changes is another one, the table has changed since.
    """
    schema, _, name = table.partition(".")
    row = _STATEMENTS.statistics(conn, schema=schema, name=name)
    if row is None:
        return {}
    rows, changes = row
    seen: dict[str, Any] = {"rows_changed": changes}
    if rows >= 0:  # below: the table has never been analyzed
        seen["dagster/row_count"] = rows
    changed = datetime.now(UTC).timestamp() if before and before.get("rows_changed") != changes else None
    if last := changed or before.get(_CHANGED):
        seen[_CHANGED] = dg.MetadataValue.timestamp(last)
    return seen


def _newest(instance: dg.DagsterInstance, key: dg.AssetKey) -> dict[str, Any]:
    records = instance.fetch_observations(key, limit=1).records
    observation = records[0].asset_observation if records else None
    return {name: value.value for name, value in observation.metadata.items()} if observation else {}
