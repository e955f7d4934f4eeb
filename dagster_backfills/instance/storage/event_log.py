"""An event log storage that writes a run's planned partitions in one batch.

Before a run starts, Dagster writes a planned event for each partition, each in its own transactions. For ten thousand
partitions that exceeds the start timeout. Materializations are already batched by Dagster itself. If the signature of
a Dagster method that is used here has changed, events are written as in the stock storage.
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

from dagster_backfills.instance.storage.sessions import note_execution

_EXPECTED: Mapping[str, tuple[str, ...]] = {
    "store_event_batch": ("events",),
    "prepare_insert_event_batch": ("events",),
    "_event_to_row": ("event",),
    "run_connection": ("run_id",),
    "store_asset_event": ("event", "event_id"),
}


def shape_differs(storage: type) -> list[str]:
    """The methods of the stock class that are missing or have other parameters than expected."""

    def parameters(name: str) -> tuple[str, ...] | None:
        method = getattr(storage, name, None)
        return tuple(inspect.signature(method).parameters)[1:] if method else None

    return [name for name, expected in _EXPECTED.items() if parameters(name) != expected]


class BatchedEventLogStorage(PostgresEventLogStorage):
    """Dagster's Postgres event log, except that planned partitions of a batch are inserted with one statement.

    The result in the database is the same as storing the events one by one with the stock class.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        changed = shape_differs(PostgresEventLogStorage)
        self._together = not changed
        if changed:
            warnings.warn(
                f"Runs of many partitions start slowly: this Dagster version has changed {', '.join(changed)} of its"
                " event log, so planned partitions are written one by one",
                stacklevel=2,
            )

    def store_event(self, event: dg.EventLogEntry) -> None:
        note_execution(event)
        super().store_event(event)

    def store_event_batch(self, events: Sequence[dg.EventLogEntry]) -> None:
        """Store `events` in their order. Events other than planned partitions are stored by the stock class."""
        if not self._together:
            super().store_event_batch(events)
            return
        for planned, neighbours in groupby(events, key=_is_planned):
            if planned:
                self._store_planned(list(neighbours))
                continue
            # One asset at a time, because the stock class would update only the last one in `asset_keys`.
            for _, group in groupby(neighbours, key=lambda event: event.get_dagster_event().asset_key):
                super().store_event_batch(list(group))

    def prepare_insert_event_batch(self, events: Sequence[dg.EventLogEntry]) -> Any:
        """The stock insert with one array per column: a bind per value costs SQLAlchemy more time than Postgres."""
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
        # `asset_keys` has only the newest event of each asset, so the earlier ones need not be stored there.
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
