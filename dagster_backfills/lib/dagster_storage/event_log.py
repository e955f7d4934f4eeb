"""The event log that writes a run's planned partitions in one statement. Not here: which events a run has.

Dagster writes one planned event for each partition before a run may start, each in transactions of its own;
ten thousand of them outlast the time that a run is given to start. Only methods without an underscore are
used, and both their signatures and the rows are compared with Dagster's own: where it has changed something,
events are written as they always were.
"""

import inspect
import warnings
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime
from itertools import groupby
from typing import Any

import dagster as dg
from dagster_postgres import PostgresEventLogStorage
from dagster_postgres.utils import get_token_provider_from_config, pg_url_from_config

from dagster_backfills.lib.dagster_storage.event_text import EventTexts

IN_ONE_STATEMENT = frozenset(
    {
        dg.DagsterEventType.ASSET_MATERIALIZATION,
        dg.DagsterEventType.ASSET_OBSERVATION,
        dg.DagsterEventType.ASSET_MATERIALIZATION_PLANNED,
    }
)
_EXPECTED: Mapping[str, tuple[str, ...]] = {
    "store_event_batch": ("events",),
    "prepare_insert_event": ("event",),
    "prepare_insert_event_batch": ("events",),
    "run_connection": ("run_id",),
    "store_asset_event_tags": ("events", "event_ids"),
    "store_asset_event": ("event", "event_id"),
}


def shape_differs(storage: type) -> list[str]:
    """The methods of the stock class that are missing or take other parameters than this was written for."""

    def parameters(name: str) -> tuple[str, ...] | None:
        method = getattr(storage, name, None)
        return tuple(inspect.signature(method).parameters)[1:] if method else None

    return [name for name, expected in _EXPECTED.items() if parameters(name) != expected]


class BatchedEventLogStorage(PostgresEventLogStorage):
    """Dagster's own Postgres event log, writing a batch of asset events with one `insert`.

    It leaves in the database what the stock class leaves after storing the same events one by one.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        changed = shape_differs(PostgresEventLogStorage)
        self._batched = not changed
        if changed:
            warnings.warn(
                f"Wide backfills start slowly: this Dagster's event log has changed {', '.join(changed)},"
                " so planned partitions are written one by one",
                stacklevel=2,
            )

    @classmethod
    def from_config_value(
        cls, inst_data: Any, config_value: Mapping[str, Any]
    ) -> "BatchedEventLogStorage":  # the stock method makes the stock class
        return cls(
            postgres_url=pg_url_from_config(config_value),
            should_autocreate_tables=config_value.get("should_autocreate_tables", True),
            inst_data=inst_data,
            token_provider=get_token_provider_from_config(config_value),
        )

    def store_event_batch(self, events: Sequence[dg.EventLogEntry]) -> None:
        """Store `events` in their order; those that can't share a statement go to the stock class."""
        if not self._batched:
            super().store_event_batch(events)
            return
        for together, neighbours in groupby(events, key=_can_share_a_statement):
            group = list(neighbours)
            if together and len(group) > 1:
                self._store_together(group)
            else:
                super().store_event_batch(group)

    def _store_together(self, events: Sequence[dg.EventLogEntry]) -> None:
        table = self.prepare_insert_event(events[0]).table
        texts = EventTexts()
        rows = [_row(event, texts) for event in events]
        with self.run_connection(events[0].run_id) as conn:
            if self._writes_the_same(events, rows):
                insert = table.insert().returning(table.c.id, sort_by_parameter_order=True)
                ids = [row[0] for row in conn.execute(insert, rows)]
            else:  # right whatever Dagster's row has become, but twice the time, in compiling the statement
                insert = self.prepare_insert_event_batch(events)
                ids = [row[0] for row in conn.execute(insert.returning(table.c.id))]
        self.store_asset_event_tags(events, ids)
        for event, event_id in _last_of_each_asset_and_type(events, ids):
            self.store_asset_event(event, event_id)

    def _writes_the_same(self, events: Sequence[dg.EventLogEntry], rows: Sequence[dict[str, Any]]) -> bool:
        """Whether the stock class would write the first event of each type as `_row` has it."""
        samples = {event.dagster_event_type: (event, row) for event, row in zip(events, rows, strict=True)}
        return all(
            self.prepare_insert_event(event).compile().params == row for event, row in samples.values()
        )


def _row(event: dg.EventLogEntry, texts: EventTexts) -> dict[str, Any]:
    """An asset event's row in `event_logs`."""
    inner = event.get_dagster_event()
    return {
        "run_id": event.run_id,
        "event": texts.of(event),
        "dagster_event_type": inner.event_type_value,
        "timestamp": datetime.fromtimestamp(event.timestamp, UTC).replace(tzinfo=None),
        "step_key": inner.step_key,
        "asset_key": inner.asset_key.to_string() if inner.asset_key else None,
        "partition": inner.partition or None,
    }


def _can_share_a_statement(event: dg.EventLogEntry) -> bool:
    return event.dagster_event_type in IN_ONE_STATEMENT and event.get_dagster_event().asset_key is not None


def _last_of_each_asset_and_type(
    events: Sequence[dg.EventLogEntry], ids: Sequence[int]
) -> Iterator[tuple[dg.EventLogEntry, int]]:
    """`asset_keys` holds the newest event of an asset: earlier ones would only be overwritten."""
    newest = {
        (event.get_dagster_event().asset_key, event.dagster_event_type): (event, event_id)
        for event, event_id in zip(events, ids, strict=True)
    }
    yield from sorted(newest.values(), key=lambda pair: pair[1])
