"""The assets of a declared backfill. One step writes all its tables, so that each batch is one transaction."""

from collections.abc import Iterator, Sequence
from datetime import timedelta
from typing import Any

import dagster as dg

from dagster_backfills.components.backfill import Backfill
from dagster_backfills.components.inspection import inspect
from dagster_backfills.dagster.catalog import Catalog, catalog_of, code_references, code_version
from dagster_backfills.dagster.failures import without_retry
from dagster_backfills.engine.declared.declaration import TableDeclaration
from dagster_backfills.engine.declared.validation import named_function
from dagster_backfills.engine.model import WHOLE
from dagster_backfills.postgres.table_names import asset_path, is_named, split_table


def build_assets(backfill: Backfill) -> dg.AssetsDefinition:
    """One asset per table, all written by one step."""
    tables = dict(zip(output_names(backfill), backfill.declared.tables, strict=True))

    @dg.multi_asset(
        name=backfill.name,
        outs={name: _asset_out(backfill, table) for name, table in tables.items()},
        internal_asset_deps=dict(zip(tables, _dependencies(backfill), strict=True)),
        deps=[dg.AssetKey(asset_path(source)) for source in backfill.sources],
        can_subset=True,
        partitions_def=backfill.partitions_def,
        backfill_policy=dg.BackfillPolicy.single_run(),
        required_resource_keys={backfill.database},
        hooks=backfill.rules.after_failure(),
    )
    def written(context: dg.AssetExecutionContext) -> Iterator[Any]:
        selected = context.op_execution_context.selected_output_names
        chosen = {name: table for name, table in tables.items() if name in selected}
        keys = list(context.partition_keys) if backfill.partitions_def else [WHOLE]
        with without_retry(), backfill.connect(context) as conn:
            inspect(backfill, conn)
            # Downstream tables that this run does not write become stale. They are marked before the first row is
            # written, so that a run that dies leaves none of them wrongly fresh.
            downstream = list(tables)[list(tables).index(next(iter(chosen))) :]
            backfill.mark(conn, [tables[name].asset for name in downstream if name not in chosen], keys)
            conn.commit()
        value: Any = backfill.write_set(list(chosen.values()), context.run)
        for name in chosen:
            yield dg.Output(value, name)
            value = None  # the first output writes all tables
        yield from observed(backfill, context)

    return written


def observed(backfill: Backfill, context: Any) -> Iterator[dg.AssetObservation]:
    """An observation with the metadata that the declared report function returns, if any. Call it after writing."""
    if backfill.declared.report is None:
        return
    report = named_function(backfill.declared.report, backfill.name)
    with backfill.connect(context) as conn:
        metadata = report(conn, context.run.run_id)
        conn.commit()
    if metadata:
        yield dg.AssetObservation(backfill.assets[-1].split("/"), metadata=metadata)


def output_names(backfill: Backfill) -> list[str]:
    """The names of the tables' outputs, with characters that Dagster allows; with the schema if two are the same."""
    keys = [asset.split("/") for asset in backfill.assets]
    last = [key[-1] for key in keys]
    full = ["_".join(key) if last.count(key[-1]) > 1 else key[-1] for key in keys]
    return ["".join(c if c.isalnum() else "_" for c in name) for name in full]


def _asset_out(backfill: Backfill, table: TableDeclaration) -> dg.AssetOut:
    declared, catalog = backfill.declared, _catalog(backfill)
    statement, hours = backfill.statements[table.statement], declared.fresh_hours
    return dg.AssetOut(
        key=table.asset.split("/"),
        description=table.description or catalog.description(table.qualified),
        metadata={
            **table.target(partitioned=backfill.partitions_def is not None).metadata(),
            **catalog.metadata(table.qualified, database=declared.database),
            **code_references([(*statement.source, statement.name)]),
        },
        group_name=backfill.group,
        kinds={"postgres", "python" if table.compute else "sql"},
        owners=table.owners or declared.owners,
        tags={**declared.tags, **table.tags},
        code_version=code_version(_text(backfill, table)),
        freshness_policy=dg.FreshnessPolicy.time_window(timedelta(hours=hours)) if hours else None,
        is_required=False,
        io_manager_key=backfill.io_manager,
    )


def build_views(backfill: Backfill) -> Sequence[dg.AssetSpec]:
    """The assets of the declared views."""
    catalog, declared = _catalog(backfill), backfill.declared
    names = [".".join(split_table(view)) for view in declared.views]
    return [
        catalog.spec(name, database=declared.database, owners=declared.owners, tags=declared.tags)
        for name in names
    ]


def _catalog(backfill: Backfill) -> Catalog:
    """The catalog of the backfill's folder. It describes DATABASE_URL, so it is empty for any other database."""
    return Catalog({}) if backfill.declared.database else catalog_of(backfill.folder)


def _text(backfill: Backfill, table: TableDeclaration) -> str:
    """The SQL and the function name that determine the table's rows."""
    names = [name for name in (table.statement, table.units_statement, table.compute) if name is not None]
    return "\n".join(backfill.statements[n].sql if n in backfill.statements else n for n in names)


def _dependencies(backfill: Backfill) -> list[set[dg.AssetKey]]:
    """For each table, the sources and earlier tables that its statements name. The first table gets unused sources."""
    upstream = {source: dg.AssetKey(asset_path(source)) for source in backfill.sources}
    sources, dependencies = set(upstream.values()), []
    for table in backfill.declared.tables:
        text = _text(backfill, table)
        dependencies.append({key for name, key in upstream.items() if is_named(name, text)})
        upstream[table.table] = dg.AssetKey(table.asset.split("/"))
    dependencies[0] |= sources.difference(*dependencies)
    return dependencies
