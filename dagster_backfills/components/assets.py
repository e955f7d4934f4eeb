"""The assets of a declared backfill: one step for all its tables, so that a batch writes them in one transaction."""

import hashlib
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

import dagster as dg

from dagster_backfills.components.declaration import Table, split_table
from dagster_backfills.components.validation import named_function
from dagster_backfills.engine.model import WHOLE

if TYPE_CHECKING:
    from dagster_backfills.components.building import Backfill


def build_assets(backfill: "Backfill") -> dg.AssetsDefinition:
    """An asset a table."""
    tables = {output_name(table): table for table in backfill.declared.tables}

    @dg.multi_asset(
        name=backfill.name,
        outs={name: _asset_out(backfill, table) for name, table in tables.items()},
        internal_asset_deps={name: _dependencies(backfill, table) for name, table in tables.items()},
        deps=[dg.AssetKey(split_table(source)) for source in backfill.declared.sources],
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


def output_name(table: Table) -> str:
    """The name of a table's output: what Dagster allows of the table's own."""
    return "".join(c if c.isalnum() else "_" for c in table.key_path[1])


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


def _asset_out(backfill: "Backfill", table: Table) -> dg.AssetOut:
    return dg.AssetOut(
        key=table.key_path,
        description=table.description,
        metadata={
            **table.target(partitioned=backfill.partitions_def is not None).metadata(),
            "dagster/table_name": ".".join(table.key_path),
        },
        group_name=backfill.group,
        kinds={"postgres"},
        owners=table.owners,
        tags=table.tags,
        code_version=hashlib.sha256(_text(backfill, table).encode()).hexdigest()[:12],
        is_required=False,
        io_manager_key=backfill.io_manager,
    )


def _text(backfill: "Backfill", table: Table) -> str:
    """Everything that says what the table's rows are."""
    names = [name for name in (table.query, table.reads, table.units, table.compute) if name is not None]
    return "\n".join(backfill.statements[n].sql if n in backfill.statements else n for n in names)


def _dependencies(backfill: "Backfill", table: Table) -> set[dg.AssetKey]:
    """The sources and the tables before this one that its statements name; all sources if they name none."""
    declared, text = backfill.declared, _text(backfill, table)
    before = declared.tables[: declared.tables.index(table)]
    named = [*declared.sources, *(other.table for other in before)]
    found = [name for name in named if name in text] or declared.sources
    return {dg.AssetKey(split_table(name)) for name in found}
