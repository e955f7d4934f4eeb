"""Loading an upstream table: the partitions and columns asked for, as a frame or as a Select still to be run."""

from collections.abc import Sequence
from datetime import date
from typing import Any

import dagster as dg
import pandas as pd
import pyarrow as pa
from sqlalchemy import (
    Boolean,
    ColumnElement,
    Integer,
    MetaData,
    Select,
    Text,
    and_,
    any_,
    bindparam,
    cast,
    false,
    func,
    or_,
    select,
    tuple_,
)
from sqlalchemy import Table as SQLTable
from sqlalchemy.dialects.postgresql import ARRAY
from sqlalchemy.types import UserDefinedType

from dagster_backfills.dagster.layout import address_of
from dagster_backfills.dagster.resource import PostgresResource
from dagster_backfills.engine.model import Target
from dagster_backfills.engine.table.address import Address, ByDimensions, ByValue, ByWindow
from dagster_backfills.engine.table.catalog import read_table
from dagster_backfills.errors import UserError


def load_rows(context: dg.InputContext, postgres: PostgresResource) -> Any:
    """A pandas DataFrame (the default), an Arrow table or a SQLAlchemy Select, by the input's annotation."""
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


def _frame(result: Any, types: Sequence[Any]) -> pd.DataFrame:
    """The rows with exact numbers: whole ones stay whole beside a null, and decimals stay decimals."""
    names, fetched = list(result.keys()), result.fetchall()
    frame = pd.DataFrame(index=range(len(fetched)))
    for position, (name, type_) in enumerate(zip(names, types, strict=True)):
        values = [row[position] for row in fetched]
        nullable = {Integer: "Int64", Boolean: "boolean"}
        dtype = next((d for kind, d in nullable.items() if isinstance(type_, kind) and None in values), None)
        frame[name] = pd.Series(values, dtype=dtype)
    return frame


def _select(context: dg.InputContext, postgres: PostgresResource) -> Select[Any]:
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
        keys = context.asset_partition_keys
        address = address_of(target, table, context.asset_partitions_def, keys)
        selected = selected.where(_slice(address, keys, relation.c))
    return selected


def _slice(address: Address, keys: Sequence[str], columns: Any) -> ColumnElement[bool]:
    """The rows of these partitions, where their writer puts them; of no partition, no row."""
    if isinstance(address, ByWindow):
        column = columns[address.column]
        windows = _merged([address.bounds(key) for key in keys])
        return or_(false(), *(and_(column >= start, column < end) for start, end in windows))
    if isinstance(address, ByDimensions):
        held = [columns[column] for column in address.columns.values()]
        values = [
            _literals(address.types[d], [address.parts[key][d] for key in keys]) for d in address.columns
        ]
        return tuple_(*held).in_(select(*(func.unnest(array) for array in values)))
    assert isinstance(address, ByValue)
    return columns[address.column] == any_(_literals(address.type, keys))


def _literals(type_: str, keys: Sequence[str]) -> Any:
    """Partition keys as one array of a type that the catalog spells so, however many they are."""

    class Named(UserDefinedType[Any]):
        cache_ok = False

        def get_col_spec(self, **_: Any) -> str:
            return type_.replace("%", "%%")

    return cast(bindparam(None, [str(key) for key in keys], ARRAY(Text())), ARRAY(Named()))


def _merged(windows: Sequence[tuple[date, date]]) -> list[tuple[date, date]]:
    """Windows that touch, as one: a year of days is a single range."""
    merged: list[tuple[date, date]] = []
    for start, end in sorted(windows):
        if merged and start <= merged[-1][1]:
            merged[-1] = (merged[-1][0], max(merged[-1][1], end))
        else:
            merged.append((start, end))
    return merged
