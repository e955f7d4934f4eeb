"""The assets of a declared backfill: one step for all its tables, so that a batch writes them in one transaction."""

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

import dagster as dg

from dagster_backfills.components.declaration import TableDeclaration
from dagster_backfills.components.inspection import refuse_mistakes
from dagster_backfills.components.validation import named_function
from dagster_backfills.dagster.catalog import catalog_of, code_references, code_version
from dagster_backfills.engine.model import WHOLE
from dagster_backfills.postgres.table_names import is_named, split_table

if TYPE_CHECKING:
    from dagster_backfills.components.building import Backfill


def build_assets(backfill: "Backfill") -> dg.AssetsDefinition:
    """An asset a table."""
    tables = dict(zip(output_names(backfill.declared.tables), backfill.declared.tables, strict=True))

    @dg.multi_asset(
        name=backfill.name,
        outs={name: _asset_out(backfill, table) for name, table in tables.items()},
        internal_asset_deps=dict(zip(tables, _dependencies(backfill), strict=True)),
        deps=[dg.AssetKey(split_table(source)) for source in backfill.sources],
        can_subset=True,
        partitions_def=backfill.partitions_def,
        backfill_policy=dg.BackfillPolicy.single_run(),
        required_resource_keys={backfill.database},
        hooks=backfill.rules.after_failure(),
    )
    def written(context: dg.AssetExecutionContext) -> Iterator[Any]:
        selected = context.op_execution_context.selected_output_names
        chosen = [name for name in tables if name in selected]
        keys = list(context.partition_keys) if backfill.partitions_def else [WHOLE]
        with backfill.connect(context) as conn:
            refuse_mistakes(backfill, conn)
        _mark_left_out(backfill, context, [tables[name].asset for name in tables if name not in chosen], keys)
        yield dg.Output(backfill.write_set([tables[name] for name in chosen], context.run), chosen[0])
        for name in chosen[1:]:
            yield dg.Output(None, name)
        yield from observed(backfill, context)

    return written


def observed(backfill: "Backfill", context: Any) -> Iterator[dg.AssetObservation]:
    """What the declared report says of the run, once its rows are written; nothing where it says nothing."""
    if backfill.declared.report is None:
        return
    report = named_function(backfill.declared.report, backfill.name)
    with backfill.connect(context) as conn:
        metadata = report(conn, context.run.run_id)
        conn.commit()
    if metadata:
        yield dg.AssetObservation(backfill.declared.tables[-1].key_path, metadata=metadata)


def output_names(tables: Sequence[TableDeclaration]) -> list[str]:
    """The names of the tables' outputs: what Dagster allows of their own; with the schema where two are the same."""
    last = [table.key_path[-1] for table in tables]
    full = ["_".join(t.key_path) if last.count(t.key_path[-1]) > 1 else t.key_path[-1] for t in tables]
    return ["".join(c if c.isalnum() else "_" for c in name) for name in full]


def _mark_left_out(
    backfill: "Backfill", context: dg.AssetExecutionContext, assets: Sequence[str], keys: Sequence[str]
) -> None:
    """Tables that are made of those being written, and are not written with them, are stale from now on.

    Before the first row is there, so that a run that dies leaves none of them wrongly fresh.
    """
    written = [backfill.assets.index(asset) for asset in backfill.assets if asset not in assets]
    behind = [asset for asset in assets if backfill.assets.index(asset) > min(written)]
    if behind:
        with backfill.connect(context) as conn:
            backfill.mark(conn, behind, keys)
            conn.commit()


def _asset_out(backfill: "Backfill", table: TableDeclaration) -> dg.AssetOut:
    declared = backfill.declared
    catalog, name = catalog_of(backfill.folder), ".".join(split_table(table.table))
    statement = backfill.statements[table.statement]
    return dg.AssetOut(
        key=table.key_path,
        description=table.description or catalog.description(name),
        metadata={
            **table.target(partitioned=backfill.partitions_def is not None).metadata(),
            **catalog.metadata(name),
            **code_references([(*statement.source, statement.name)]),
        },
        group_name=backfill.group,
        kinds={"postgres", "python" if table.compute else "sql"},
        owners=table.owners or declared.owners,
        tags={**declared.tags, **table.tags},
        code_version=code_version(_text(backfill, table)),
        freshness_policy=declared.freshness,
        is_required=False,
        io_manager_key=backfill.io_manager,
    )


def build_views(backfill: "Backfill") -> list[dg.AssetSpec]:
    """The views that are read of the tables: computed whenever they are asked."""
    catalog, declared = catalog_of(backfill.folder), backfill.declared
    return [
        catalog.spec(
            ".".join(split_table(view)),
            owners=declared.owners,
            tags=declared.tags,
        )
        for view in declared.views
    ]


def _text(backfill: "Backfill", table: TableDeclaration) -> str:
    """Everything that says what the table's rows are."""
    names = [name for name in (table.statement, table.units_statement, table.compute) if name is not None]
    return "\n".join(backfill.statements[n].sql if n in backfill.statements else n for n in names)


def _dependencies(backfill: "Backfill") -> list[set[dg.AssetKey]]:
    """By table: the sources and the tables before it that its statements name. The first has what none names."""
    named = {source: dg.AssetKey(split_table(source)) for source in backfill.sources}
    unnamed, found = set(named.values()), []
    for table in backfill.declared.tables:
        text = _text(backfill, table)
        found.append({key for name, key in named.items() if is_named(name, text)})
        named[table.table] = dg.AssetKey(table.key_path)
    found[0] |= unnamed.difference(*found)
    return found
