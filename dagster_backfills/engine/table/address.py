"""How a table is partitioned: SQL that selects the rows of partitions, and SQL for the partition of a row."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, date, datetime
from typing import Any, Protocol

import psycopg
from psycopg import sql

from dagster_backfills.engine.table.names import ident, type_name

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
Windows = Mapping[str, tuple[datetime, datetime]]  # start and end by partition key


class Address(Protocol):
    """How a table is partitioned. SQL expressions refer to the table by an alias."""

    def binds(self, keys: Sequence[str]) -> dict[str, Any]:
        """The parameters that the SQL needs for these partitions."""
        ...

    def predicate(self, alias: str) -> sql.Composable:
        """A condition that is true for rows of these partitions."""
        ...

    def label(self, alias: str) -> sql.Composable:
        """A row's partition as text: its key, or a label that `keys_by_label` maps to the key."""
        ...

    @property
    def stored(self) -> bool:
        """Whether the table stores the partition of a row. If not, only the source's rows tell it."""
        return True

    def adjoin(self, earlier: str, later: str) -> bool:
        """Whether one window, from the start of the earlier partition to the end of the later, has only these two."""
        return True

    def candidates(self, alias: str) -> sql.Composable:
        """A cheaper condition for listing units: true for rows of these partitions and possibly for others."""
        return self.predicate(alias)


@dataclass(frozen=True)
class Whole(Address):
    """An unpartitioned table."""

    def binds(self, keys: Sequence[str]) -> dict[str, Any]:
        return {}

    def predicate(self, alias: str) -> sql.Composable:
        return sql.SQL("true")

    def label(self, alias: str) -> sql.Composable:
        return sql.SQL("''")


@dataclass(frozen=True)
class ByQuery(Address):
    """The table does not store the partition. The source returns it with each row, in the column `column`.

    windows: for time partitions.
    """

    column: str
    windows: Windows = field(default_factory=dict)

    @property
    def stored(self) -> bool:
        return False

    def binds(self, keys: Sequence[str]) -> dict[str, Any]:
        return {"partition_keys": list(keys), **window_binds(self.windows, keys)}

    def predicate(self, alias: str) -> sql.Composable:
        return sql.SQL("{} = any(%(partition_keys)s::text[])").format(ident(alias, self.column))

    def adjoin(self, earlier: str, later: str) -> bool:
        return _adjoin(self.windows, earlier, later)

    def label(self, alias: str) -> sql.Composable:
        return ident(alias, self.column)


@dataclass(frozen=True)
class ByValue(Address):
    """One column stores the partition key, as text or as another type that the key casts to (a uuid, a number).

    windows: for time partitions.
    """

    column: str
    type: str
    windows: Windows = field(default_factory=dict)

    def binds(self, keys: Sequence[str]) -> dict[str, Any]:
        return {"partition_keys": list(keys), **window_binds(self.windows, keys)}

    def adjoin(self, earlier: str, later: str) -> bool:
        return _adjoin(self.windows, earlier, later)

    def predicate(self, alias: str) -> sql.Composable:
        # The keys are cast, not the column, so that an index on the column can be used.
        return sql.SQL("{} = any(%(partition_keys)s::text[]::{}[])").format(
            ident(alias, self.column), type_name(self.type)
        )

    def label(self, alias: str) -> sql.Composable:
        return sql.SQL("{}::text").format(ident(alias, self.column))


@dataclass(frozen=True)
class ByWindow(Address):
    """One column stores a time or date. A row belongs to the partition whose window contains it, end excluded.

    windows: for a `date` column they are reduced to their dates, in the time zone of the given values.
    """

    column: str
    type: str
    windows: Windows

    def binds(self, keys: Sequence[str]) -> dict[str, Any]:
        ordered = sorted(keys, key=lambda key: self.windows[key][0])
        windows = [self.windows[key] for key in ordered]
        window = window_binds(self.windows, ordered)
        return {
            "partition_keys": ordered,
            **window,
            "slice_start": self._bound(window["window_start"]),
            "slice_end": self._bound(window["window_end"]),
            "slice_starts": [self._bound(start) for start, _ in windows],
            "slice_ends": [self._bound(end) for _, end in windows],
        }

    def adjoin(self, earlier: str, later: str) -> bool:
        return _adjoin(self.windows, earlier, later)

    def _bound(self, point: datetime) -> date:
        return point.date() if self.type == "date" else point

    def _in(self, alias: str, text: str) -> sql.Composable:
        # The windows are sorted and do not overlap, so width_bucket finds the only one that may contain the value.
        return sql.SQL(text).format(
            column=ident(alias, self.column),
            type=type_name(self.type),
            at=sql.SQL("width_bucket({c}::{t}, %(slice_starts)s::{t}[])").format(
                c=ident(alias, self.column), t=type_name(self.type)
            ),
        )

    def predicate(self, alias: str) -> sql.Composable:
        return self._in(
            alias,
            "({column} >= %(slice_start)s::{type} and {column} < %(slice_end)s::{type}"
            " and {column} < (%(slice_ends)s::{type}[])[{at}])",
        )

    def label(self, alias: str) -> sql.Composable:
        return self._in(
            alias,
            "case when {column} < (%(slice_ends)s::{type}[])[{at}] then (%(partition_keys)s::text[])[{at}] end",
        )


@dataclass(frozen=True)
class ByDimensions(Address):
    """A multi-partitioned table with one column per dimension.

    columns, types: by dimension. parts: by partition key, the key's value in each dimension. The values are bound as
    arrays `<dimension>_keys` of equal length, with one partition at each position.
    """

    columns: Mapping[str, str]
    types: Mapping[str, str]
    parts: Mapping[str, Mapping[str, str]]

    def binds(self, keys: Sequence[str]) -> dict[str, Any]:
        values = {f"{d}_keys": [self.parts[key][d] for key in keys] for d in self.columns}
        return {"partition_keys": list(keys), **values}

    def combinations(self) -> sql.Composable:
        """The partitions as rows: `key`, and one column for each dimension."""
        arrays = [sql.SQL("{}::text[]").format(sql.Placeholder(f"{d}_keys")) for d in self.columns]
        return sql.SQL("unnest(%(partition_keys)s::text[], {}) as w (key, {})").format(
            sql.SQL(", ").join(arrays), sql.SQL(", ").join(ident(d) for d in self.columns)
        )

    def value(self, dimension: str) -> sql.Composable:
        return sql.SQL("w.{}::{}").format(ident(dimension), type_name(self.types[dimension]))

    def predicate(self, alias: str) -> sql.Composable:
        matches = [
            sql.SQL("{} = {}").format(ident(alias, column), self.value(d))
            for d, column in self.columns.items()
        ]
        return sql.SQL("exists (select from {} where {})").format(
            self.combinations(), sql.SQL(" and ").join(matches)
        )

    def label(self, alias: str) -> sql.Composable:
        values = [sql.SQL("{}::text").format(ident(alias, column)) for column in self.columns.values()]
        return sql.SQL("array[{}]::text").format(sql.SQL(", ").join(values))


def window_binds(windows: Windows, keys: Sequence[str]) -> dict[str, datetime]:
    """The parameters for the time from the first window's start to the last one's end."""
    chosen = [windows[key] for key in keys if key in windows]
    return {
        "window_start": min((start for start, _ in chosen), default=_EPOCH),
        "window_end": max((end for _, end in chosen), default=_EPOCH),
    }


def _adjoin(windows: Windows, earlier: str, later: str) -> bool:
    return not windows or windows[earlier][1] == windows[later][0]


def keys_by_label(conn: psycopg.Connection, address: Address, keys: Sequence[str]) -> dict[str, str]:
    """Returns partition keys by label. They differ if the column's type formats the key differently (a uuid, say)."""
    if isinstance(address, ByValue) and address.type != "text":
        statement = sql.SQL(
            "select k::{}::text, k from unnest(%(partition_keys)s::text[]) as k",
        ).format(type_name(address.type))
    elif isinstance(address, ByDimensions):
        values = [sql.SQL("{}::text").format(address.value(d)) for d in address.columns]
        statement = sql.SQL("select array[{}]::text, w.key from {}").format(
            sql.SQL(", ").join(values), address.combinations()
        )
    else:
        return {key: key for key in keys}
    return dict(conn.execute(statement, address.binds(keys)).fetchall())
