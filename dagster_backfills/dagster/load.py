"""Loading partitions and columns of an upstream table, as a frame or as a Select to be executed later."""

import re
from collections.abc import Sequence
from typing import Any

import dagster as dg
import pandas as pd
import pyarrow as pa
from sqlalchemy import Boolean, Integer, MetaData, Select, TextClause, bindparam, select, text
from sqlalchemy import Table as SQLTable
from sqlalchemy.types import NullType

from dagster_backfills.dagster.layout import address_of
from dagster_backfills.dagster.resource import PostgresResource
from dagster_backfills.engine.model import Target
from dagster_backfills.engine.table.address import Address
from dagster_backfills.engine.table.catalog import read_table
from dagster_backfills.errors import UserError

_ALIAS = "loaded"
_BIND = re.compile(r"(?<!%)%\(([^)]*)\)s")


def load_rows(context: dg.InputContext, postgres: PostgresResource) -> Any:
    """A pandas DataFrame (the default), an Arrow table or a SQLAlchemy Select, by the input's annotation."""
    select = _select(context, postgres)
    annotation = context.dagster_type.typing_type
    if annotation is Select:
        return select
    if annotation in (pd.DataFrame, pa.Table, Any) or not isinstance(annotation, type):
        with postgres.engine.connect() as conn:
            frame = _frame(conn.execute(select), [column.type for column in select.selected_columns])
        return pa.Table.from_pandas(frame, preserve_index=False) if annotation is pa.Table else frame
    raise UserError(
        f"Input {context.name!r}: a table can't be loaded as {annotation.__name__}.",
        hint="Annotate it as pandas.DataFrame, pyarrow.Table or sqlalchemy.Select.",
    )


def _frame(result: Any, types: Sequence[Any]) -> pd.DataFrame:
    """The rows with exact numbers: integer columns with nulls stay integers, and decimals stay decimals."""
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
    relation = SQLTable(table.name, MetaData(), schema=table.schema, autoload_with=postgres.engine).alias(
        _ALIAS
    )
    columns = (context.definition_metadata or {}).get("columns")
    for name in columns or ():
        table.column(name)
    selected = select(*(relation.c[name] for name in columns)) if columns else select(relation)
    if context.has_asset_partitions:
        keys = context.asset_partition_keys
        address = address_of(target, table, context.asset_partitions_def, keys)
        if not address.stored:
            raise UserError(
                f"Input {context.name!r}: {table.qualified} has no partition column.",
                hint="Load the whole table, in an asset without partitions.",
            )
        selected = selected.where(_within(address, keys))
    return selected


def _within(address: Address, keys: Sequence[str]) -> TextClause:
    """The WHERE clause for these partitions: the writer's own predicate, with its binds in SQLAlchemy's syntax."""
    binds, names = address.binds(keys), dict[str, str]()

    def named(bind: re.Match[str]) -> str:
        return ":" + names.setdefault(bind[1], f"bind_{len(names)}")

    predicate = address.predicate(_ALIAS).as_string().replace(":", "\\:")
    clause = text(_BIND.sub(named, predicate).replace("%%", "%"))
    # NullType, because SQLAlchemy would cast a timestamptz to a timestamp without time zone.
    return clause.bindparams(*(bindparam(name, binds[bind], NullType()) for bind, name in names.items()))
