"""Where a partition's rows are in a table: the predicate of a slice, and the partition that a row belongs to."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, date, datetime
from typing import Any, Protocol

import psycopg
from psycopg import sql

from dagster_backfills.engine.table.names import ident, type_name

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


class Address(Protocol):
    """How a table is partitioned."""

    def binds(self, keys: Sequence[str]) -> dict[str, Any]:
        """The binds that a slice of these partitions needs."""
        ...

    def predicate(self, alias: str) -> sql.Composable:
        """True for the rows of the slice."""
        ...

    def label(self, alias: str) -> sql.Composable:
        """The partition of a row, as text: its key, or what `keys_by_label` knows the key by."""
        ...

    @property
    def stored(self) -> bool:
        """Whether the table says which partition a row is of; else only the source's rows do."""
        return True

    def candidates(self, alias: str) -> sql.Composable:
        """True for the rows of the slice, and maybe for more of its partitions: what a long list can afford to ask."""
        return self.predicate(alias)


@dataclass(frozen=True)
class Whole(Address):
    """No partitions: the slice is the table."""

    def binds(self, keys: Sequence[str]) -> dict[str, Any]:
        return {}

    def predicate(self, alias: str) -> sql.Composable:
        return sql.SQL("true")

    def label(self, alias: str) -> sql.Composable:
        return sql.SQL("''")


@dataclass(frozen=True)
class ByQuery(Address):
    """The table does not hold the partition: the source gives it beside each row, in the column `column`.

    `windows` gives start and end of a partition in time.
    """

    column: str
    windows: Mapping[str, tuple[datetime, datetime]] = field(default_factory=dict)

    @property
    def stored(self) -> bool:
        return False

    def binds(self, keys: Sequence[str]) -> dict[str, Any]:
        windows = [self.windows[key] for key in keys if key in self.windows]
        start = min((window[0] for window in windows), default=_EPOCH)
        end = max((window[1] for window in windows), default=_EPOCH)
        return {"partition_keys": list(keys), "window_start": start, "window_end": end}

    def predicate(self, alias: str) -> sql.Composable:
        return sql.SQL("{} = any(%(partition_keys)s::text[])").format(ident(alias, self.column))

    def label(self, alias: str) -> sql.Composable:
        return ident(alias, self.column)


@dataclass(frozen=True)
class ByValue(Address):
    """One column holds the partition key, as text or as what the key casts to (a uuid, a number)."""

    column: str
    type: str

    def binds(self, keys: Sequence[str]) -> dict[str, Any]:
        return {"partition_keys": list(keys)}

    def predicate(self, alias: str) -> sql.Composable:
        # The cast stands on the keys' side, so that an index on the column serves.
        return sql.SQL("{} = any(%(partition_keys)s::text[]::{}[])").format(
            ident(alias, self.column), type_name(self.type)
        )

    def label(self, alias: str) -> sql.Composable:
        return sql.SQL("{}::text").format(ident(alias, self.column))


@dataclass(frozen=True)
class ByWindow(Address):
    """A point in time, or a date, lies in the partition's window: from its start up to its end, without it.

    `windows` gives start and end of a partition key. In a column of type `date` they are those points' dates, in
    the time zone that the points are given in.
    """

    column: str
    type: str
    windows: Mapping[str, tuple[datetime, datetime]]

    def binds(self, keys: Sequence[str]) -> dict[str, Any]:
        ordered = sorted(keys, key=lambda key: self.windows[key][0])
        windows = [self.windows[key] for key in ordered]
        start, end = (windows[0][0], windows[-1][1]) if windows else (_EPOCH, _EPOCH)
        return {
            "partition_keys": ordered,
            "window_start": start,
            "window_end": end,
            "slice_start": self._bound(start),
            "slice_end": self._bound(end),
            "slice_starts": [self._bound(start) for start, _ in windows],
            "slice_ends": [self._bound(end) for _, end in windows],
        }

    def _bound(self, point: datetime) -> date:
        return point.date() if self.type == "date" else point

    def _in(self, alias: str, text: str) -> sql.Composable:
        # The windows are in order and do not overlap: the only one that can hold the value is found by bisection.
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
    """Several dimensions, a column each. `parts` gives a partition key's value in each dimension.

    The dimensions' values are bound as `<dimension>_keys`, of equal length: one combination a position.
    """

    columns: Mapping[str, str]
    types: Mapping[str, str]
    parts: Mapping[str, Mapping[str, str]]

    def binds(self, keys: Sequence[str]) -> dict[str, Any]:
        values = {f"{d}_keys": [self.parts[key][d] for key in keys] for d in self.columns}
        return {"partition_keys": list(keys), **values}

    def combinations(self) -> sql.Composable:
        """The slice's combinations as rows: `key`, and each dimension under its own name."""
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


def keys_by_label(conn: psycopg.Connection, address: Address, keys: Sequence[str]) -> dict[str, str]:
    """The partition keys by what `label` says of their rows, where that is the key as its column spells it."""
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
