"""The event log that writes a run's planned partitions together. Not here: which events a run has.

Dagster writes one planned event for each partition before a run may start, each in transactions of its own;
ten thousand of them outlast the time that a run is given to start. Materializations it writes in batches itself.
The signatures of the methods that are used are compared with what this was written for: where Dagster has changed one,
events are written as they always were.
"""

import inspect
import warnings
from collections.abc import Mapping, Sequence
from itertools import groupby
from typing import Any

import dagster as dg
import sqlalchemy as sa
from dagster_postgres import PostgresEventLogStorage
from sqlalchemy.dialects.postgresql import ARRAY

_EXPECTED: Mapping[str, tuple[str, ...]] = {
    "store_event_batch": ("events",),
    "prepare_insert_event_batch": ("events",),
    "_event_to_row": ("event",),
    "run_connection": ("run_id",),
    "store_asset_event": ("event", "event_id"),
}


def shape_differs(storage: type) -> list[str]:
    """The methods of the stock class that are missing or take other parameters than this was written for."""

    def parameters(name: str) -> tuple[str, ...] | None:
        method = getattr(storage, name, None)
        return tuple(inspect.signature(method).parameters)[1:] if method else None

    return [name for name, expected in _EXPECTED.items() if parameters(name) != expected]


class BatchedEventLogStorage(PostgresEventLogStorage):
    """Dagster's own Postgres event log, writing a batch's planned partitions in one statement.

    It leaves in the database what the stock class leaves after storing the same events one by one.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        changed = shape_differs(PostgresEventLogStorage)
        self._together = not changed
        if changed:
            warnings.warn(
                f"Wide backfills start slowly: this Dagster's event log has changed {', '.join(changed)},"
                " so planned partitions are written one by one",
                stacklevel=2,
            )

    def store_event_batch(self, events: Sequence[dg.EventLogEntry]) -> None:
        """Store `events` in their order; those that are no planned partitions go to the stock class."""
        if not self._together:
            super().store_event_batch(events)
            return
        for planned, neighbours in groupby(events, key=_is_planned):
            if planned:
                self._store_planned(list(neighbours))
                continue
            # One asset at a time: of several, the stock class would enter the last one alone in `asset_keys`.
            for _, group in groupby(neighbours, key=lambda event: event.get_dagster_event().asset_key):
                super().store_event_batch(list(group))

    def prepare_insert_event_batch(self, events: Sequence[dg.EventLogEntry]) -> Any:
        """The stock statement's rows, as an array a column: a bind a value costs SQLAlchemy more than Postgres."""
        if not self._together:
            return super().prepare_insert_event_batch(events)
        table = super().prepare_insert_event_batch(events[:1]).table
        rows = [self._event_to_row(event) for event in events]
        arrays = [sa.literal([row[name] for row in rows], ARRAY(table.c[name].type)) for name in rows[0]]
        return table.insert().from_select(list(rows[0]), sa.select(*map(sa.func.unnest, arrays)))

    def _store_planned(self, events: Sequence[dg.EventLogEntry]) -> None:
        insert = self.prepare_insert_event_batch(events)
        with self.run_connection(events[0].run_id) as conn:
            ids = [row[0] for row in conn.execute(insert.returning(insert.table.c.id))]
        # `asset_keys` holds the newest event of an asset: earlier ones would only be overwritten.
        newest = {
            event.get_dagster_event().asset_key: (event, event_id)
            for event, event_id in zip(events, ids, strict=True)
        }
        for event, event_id in newest.values():
            self.store_asset_event(event, event_id)


def _is_planned(event: dg.EventLogEntry) -> bool:
    return (
        event.dagster_event_type == dg.DagsterEventType.ASSET_MATERIALIZATION_PLANNED
        and event.get_dagster_event().asset_key is not None
    )
