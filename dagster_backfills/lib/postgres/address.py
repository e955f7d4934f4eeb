"""Where a partition's rows are in a table: the predicate of a slice, and the partition key that a row belongs to."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Protocol

from psycopg import sql


class Address(Protocol):
    """How a table is partitioned."""

    def binds(self, keys: Sequence[str]) -> dict[str, Any]:
        """The binds that a slice of these partitions needs."""
        ...

    def predicate(self, alias: str) -> sql.Composable:
        """True for the rows of the slice."""
        ...

    def label(self, alias: str) -> sql.Composable:
        """The partition key of a row."""
        ...


def _column(alias: str, name: str) -> sql.Composable:
    return sql.SQL(".").join([sql.Identifier(alias), sql.Identifier(name)])


@dataclass(frozen=True)
class Whole:
    """No partitions: the slice is the table."""

    def binds(self, keys: Sequence[str]) -> dict[str, Any]:
        return {}

    def predicate(self, alias: str) -> sql.Composable:
        return sql.SQL("true")

    def label(self, alias: str) -> sql.Composable:
        return sql.SQL("''")


@dataclass(frozen=True)
class ByValue:
    """One column holds the partition key, as text or as what the key casts to (a date, a uuid, a number)."""

    column: str
    type: str

    def binds(self, keys: Sequence[str]) -> dict[str, Any]:
        return {"partition_keys": list(keys)}

    def predicate(self, alias: str) -> sql.Composable:
        # The cast stands on the keys' side, so that an index on the column serves.
        return sql.SQL("{} = any(%(partition_keys)s::text[]::{}[])").format(
            _column(alias, self.column), sql.SQL(self.type)
        )

    def label(self, alias: str) -> sql.Composable:
        return sql.SQL("{}::text").format(_column(alias, self.column))


@dataclass(frozen=True)
class ByWindow:
    """A point in time lies in the partition's window; `windows` gives start and end of a partition key."""

    column: str
    windows: Mapping[str, tuple[datetime, datetime]]

    def binds(self, keys: Sequence[str]) -> dict[str, Any]:
        starts = [self.windows[key][0] for key in keys]
        ends = [self.windows[key][1] for key in keys]
        return {
            "partition_keys": list(keys),
            "window_starts": starts,
            "window_ends": ends,
            "window_start": min(starts, default=None),
            "window_end": max(ends, default=None),
        }

    def _window(self, alias: str, what: str) -> sql.Composable:
        return sql.SQL(
            "(select {what} from unnest(%(partition_keys)s::text[], %(window_starts)s::timestamptz[], "
            "%(window_ends)s::timestamptz[]) as w (key, starts, ends) "
            "where {column} >= w.starts and {column} < w.ends limit 1)"
        ).format(what=sql.SQL(what), column=_column(alias, self.column))

    def predicate(self, alias: str) -> sql.Composable:
        column = _column(alias, self.column)
        return sql.SQL(
            "({column} >= %(window_start)s::timestamptz and {column} < %(window_end)s::timestamptz and {inside})"
        ).format(column=column, inside=self._window(alias, "true"))

    def label(self, alias: str) -> sql.Composable:
        return self._window(alias, "w.key")


@dataclass(frozen=True)
class ByDimensions:
    """Several dimensions, a column each. `parts` gives a partition key's value in each dimension, in order.

    The dimensions' values are bound as `<dimension>_keys`, of equal length: one combination a position.
    """

    columns: Mapping[str, str]
    types: Mapping[str, str]
    parts: Mapping[str, Mapping[str, str]]

    def binds(self, keys: Sequence[str]) -> dict[str, Any]:
        values = {f"{d}_keys": [self.parts[key][d] for key in keys] for d in self.columns}
        return {"partition_keys": list(keys), **values}

    def _combination(self, alias: str, what: str) -> sql.Composable:
        arrays: list[sql.Composable] = [sql.SQL("%(partition_keys)s::text[]")]
        arrays += [sql.SQL("{}::text[]").format(sql.Placeholder(f"{d}_keys")) for d in self.columns]
        names = [sql.Identifier("key"), *(sql.Identifier(d) for d in self.columns)]
        matches = [
            sql.SQL("{} = w.{}::{}").format(_column(alias, column), sql.Identifier(d), sql.SQL(self.types[d]))
            for d, column in self.columns.items()
        ]
        return sql.SQL("(select {} from unnest({}) as w ({}) where {} limit 1)").format(
            sql.SQL(what),
            sql.SQL(", ").join(arrays),
            sql.SQL(", ").join(names),
            sql.SQL(" and ").join(matches),
        )

    def predicate(self, alias: str) -> sql.Composable:
        return sql.SQL("coalesce({}, false)").format(self._combination(alias, "true"))

    def label(self, alias: str) -> sql.Composable:
        return self._combination(alias, "w.key")
