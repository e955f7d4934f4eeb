"""Loading an upstream table: the partitions and columns asked for, as a frame or as a Select still to be run."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import dagster as dg

from dagster_backfills.lib.engine.model import Target
from dagster_backfills.lib.errors import UserError
from dagster_backfills.lib.postgres.catalog import Table, read_table
from dagster_backfills.lib.postgres.resource import PostgresResource

if TYPE_CHECKING:
    import pandas as pd
    from sqlalchemy import ColumnElement, Select


def load_rows(context: dg.InputContext, postgres: PostgresResource) -> Any:
    """A pandas DataFrame (the default), an Arrow table or a SQLAlchemy Select, by the input's annotation."""
    import pandas as pd
    import pyarrow as pa
    from sqlalchemy import Select

    select = _select(context, postgres)
    wanted = context.dagster_type.typing_type
    if wanted is Select:
        return select
    if wanted in (pd.DataFrame, pa.Table, Any) or not isinstance(wanted, type):
        with postgres.engine.connect() as conn:
            frame = _frame(conn.execute(select), [column.type for column in select.selected_columns])
        return pa.Table.from_pandas(frame, preserve_index=False) if wanted is pa.Table else frame
    raise UserError(
        f"Input {context.name!r} asks for {wanted.__name__}, which a table can't be loaded as.",
        hint="Annotate it as pandas.DataFrame, pyarrow.Table or sqlalchemy.Select.",
    )


def _frame(result: Any, types: Sequence[Any]) -> "pd.DataFrame":
    """The rows with exact numbers: whole ones stay whole beside a null, and decimals stay decimals."""
    import pandas as pd
    from sqlalchemy import Boolean, Integer

    names, fetched = list(result.keys()), result.fetchall()
    frame = pd.DataFrame(index=range(len(fetched)))
    for position, (name, type_) in enumerate(zip(names, types, strict=True)):
        values = [row[position] for row in fetched]
        nullable = {Integer: "Int64", Boolean: "boolean"}
        dtype = next((d for kind, d in nullable.items() if isinstance(type_, kind) and None in values), None)
        frame[name] = pd.Series(values, dtype=dtype)
    return frame


def _select(context: dg.InputContext, postgres: PostgresResource) -> "Select[Any]":
    from sqlalchemy import MetaData, select
    from sqlalchemy import Table as SQLTable

    upstream = context.upstream_output
    metadata = (upstream.definition_metadata if upstream is not None else None) or {}
    target = Target.from_metadata("/".join(context.asset_key.path), metadata)
    with postgres.connect() as conn:
        table = read_table(conn, *target.schema_and_table)
    relation = SQLTable(table.name, MetaData(), schema=table.schema, autoload_with=postgres.engine)
    columns = (context.definition_metadata or {}).get("columns")
    for name in columns or ():
        table.column(name)
    selected = select(*(relation.c[name] for name in columns)) if columns else select(relation)
    if context.has_asset_partitions:
        selected = selected.where(_slice(context, target, table, relation.c))
    return selected


def _slice(context: dg.InputContext, target: Target, table: Table, columns: Any) -> "ColumnElement[bool]":
    """The rows of the upstream partitions that the input stands for."""
    from sqlalchemy import and_, any_, or_

    by, keys = target.partition_by, context.asset_partition_keys
    if by is None:
        raise UserError(
            f"Asset {target.asset} is partitioned, and its metadata does not say by which column.",
            hint="Give it the metadata entry `partition_expr`.",
        )
    if isinstance(by, Mapping):
        rows = [tuple(_literal(columns[c], _part(key, d)) for d, c in by.items()) for key in keys]
        return or_(
            *(and_(*(columns[c] == part for c, part in zip(by.values(), row, strict=True))) for row in rows)
        )
    column = columns[by]
    definition = context.asset_partitions_def
    if isinstance(definition, dg.TimeWindowPartitionsDefinition) and table.column(by).base_type != "date":
        windows = _merged([definition.time_window_for_partition_key(key) for key in keys])
        return or_(*(and_(column >= start, column < end) for start, end in windows))
    if isinstance(definition, dg.TimeWindowPartitionsDefinition):
        windows = _merged([definition.time_window_for_partition_key(key) for key in keys])
        return or_(*(and_(column >= start.date(), column < end.date()) for start, end in windows))
    return column == any_(_literals(column, keys))


def _part(key: str, dimension: str) -> str:
    if not isinstance(key, dg.MultiPartitionKey):
        raise UserError(f"Partition {key!r} has no dimension {dimension!r}.")
    return key.keys_by_dimension[dimension]


def _literals(column: Any, keys: Sequence[str]) -> Any:
    """Partition keys as one array, however many they are."""
    from sqlalchemy import Text, bindparam, cast
    from sqlalchemy.dialects.postgresql import ARRAY

    return cast(bindparam(None, [str(key) for key in keys], ARRAY(Text())), ARRAY(column.type))


def _literal(column: Any, key: str) -> Any:
    """A partition key as a value of the column's own type, cast by the database."""
    from sqlalchemy import Text, cast, literal

    return cast(literal(str(key), Text()), column.type)


def _merged(windows: Sequence[Any]) -> list[tuple[Any, Any]]:
    """Windows that touch, as one: a year of days is a single range."""
    merged: list[tuple[Any, Any]] = []
    for window in sorted(windows, key=lambda w: w.start):
        if merged and window.start <= merged[-1][1]:
            merged[-1] = (merged[-1][0], max(merged[-1][1], window.end))
        else:
            merged.append((window.start, window.end))
    return merged
