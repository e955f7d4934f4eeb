"""The event log that writes a run's planned partitions together. Not here: which events a run has.

Dagster writes one planned event for each partition before a run may start, each in transactions of its own;
ten thousand of them outlast the time that a run is given to start. Only methods without an underscore are
used, and both their signatures and the rows are compared with Dagster's own: where it has changed something,
events are written as they always were.
"""

import inspect
import io
import warnings
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime
from functools import cached_property
from itertools import groupby
from typing import Any

import dagster as dg
from dagster_postgres import PostgresEventLogStorage
from dagster_postgres.utils import get_token_provider_from_config, pg_url_from_config

from dagster_backfills.lib.dagster_storage.event_text import EventTexts
from dagster_backfills.lib.dagster_storage.sessions import pinned_url

IN_ONE_STATEMENT = frozenset(
    {
        dg.DagsterEventType.ASSET_MATERIALIZATION,
        dg.DagsterEventType.ASSET_OBSERVATION,
        dg.DagsterEventType.ASSET_MATERIALIZATION_PLANNED,
    }
)
TAGS = "asset_event_tags"
_ESCAPED = (("\\", r"\\"), ("\t", r"\t"), ("\n", r"\n"), ("\r", r"\r"))
_EXPECTED: Mapping[str, tuple[str, ...]] = {
    "store_event_batch": ("events",),
    "prepare_insert_event": ("event",),
    "prepare_insert_event_batch": ("events",),
    "run_connection": ("run_id",),
    "store_asset_event_tags": ("events", "event_ids"),
    "store_asset_event": ("event", "event_id"),
    "index_transaction": (),
    "has_table": ("table_name",),
    "get_asset_tags_to_index": ("tag_keys",),
}


def shape_differs(storage: type) -> list[str]:
    """The methods of the stock class that are missing or take other parameters than this was written for."""

    def parameters(name: str) -> tuple[str, ...] | None:
        method = getattr(storage, name, None)
        return tuple(inspect.signature(method).parameters)[1:] if method else None

    return [name for name, expected in _EXPECTED.items() if parameters(name) != expected]


class BatchedEventLogStorage(PostgresEventLogStorage):
    """Dagster's own Postgres event log, writing a batch of asset events by COPY in one transaction.

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
            postgres_url=pinned_url(pg_url_from_config(config_value)),
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
        if self._writes_the_same(events, rows):
            with self.index_transaction() as conn:
                ids = _copy(conn, table, rows)
                tags = list(self._tags(events, rows, ids))
                if tags and self._has_tags:
                    _copy(conn, table.metadata.tables[TAGS], tags)
        else:  # right whatever Dagster's row has become, but three times the time
            insert = self.prepare_insert_event_batch(events)
            with self.run_connection(events[0].run_id) as conn:
                ids = [row[0] for row in conn.execute(insert.returning(table.c.id))]
            self.store_asset_event_tags(events, ids)
        for event, event_id in _last_of_each_asset_and_type(events, rows, ids):
            self.store_asset_event(event, event_id)

    @cached_property
    def _has_tags(self) -> bool:
        return bool(self.has_table(TAGS))

    def _tags(
        self, events: Sequence[dg.EventLogEntry], rows: Sequence[dict[str, Any]], ids: Sequence[int]
    ) -> Iterator[dict[str, Any]]:
        """Rows of `asset_event_tags`: those of an event's tags that Dagster looks events up by."""
        for event, row, event_id in zip(events, rows, ids, strict=True):
            tags = _tags_of(event)
            looked_up = self.get_asset_tags_to_index(set(tags))
            for name in tags:
                if name in looked_up:
                    yield {
                        "event_id": event_id,
                        "asset_key": row["asset_key"],
                        "key": name,
                        "value": tags[name],
                        "event_timestamp": row["timestamp"],
                    }

    def _writes_the_same(self, events: Sequence[dg.EventLogEntry], rows: Sequence[dict[str, Any]]) -> bool:
        """Whether the stock class would write the first event of each type as `_row` has it."""
        samples = {event.dagster_event_type: (event, row) for event, row in zip(events, rows, strict=True)}
        return all(
            self.prepare_insert_event(event).compile().params == row for event, row in samples.values()
        )


def _row(event: dg.EventLogEntry, texts: EventTexts) -> dict[str, Any]:
    """An asset event's row in `event_logs`."""
    inner = event.get_dagster_event()
    asset_key = inner.asset_key
    return {
        "run_id": event.run_id,
        "event": texts.of(event),
        "dagster_event_type": inner.event_type_value,
        "timestamp": datetime.fromtimestamp(event.timestamp, UTC).replace(tzinfo=None),
        "step_key": inner.step_key,
        "asset_key": asset_key.to_string() if asset_key else None,
        "partition": inner.partition or None,
    }


def _tags_of(event: dg.EventLogEntry) -> Mapping[str, str]:
    inner = event.get_dagster_event()
    if inner.is_step_materialization:
        return inner.step_materialization_data.materialization.tags or {}
    return inner.asset_observation_data.asset_observation.tags if inner.is_asset_observation else {}


def _can_share_a_statement(event: dg.EventLogEntry) -> bool:
    return event.dagster_event_type in IN_ONE_STATEMENT and event.get_dagster_event().asset_key is not None


def _last_of_each_asset_and_type(
    events: Sequence[dg.EventLogEntry], rows: Sequence[dict[str, Any]], ids: Sequence[int]
) -> Iterator[tuple[dg.EventLogEntry, int]]:
    """`asset_keys` holds the newest event of an asset: earlier ones would only be overwritten."""
    newest = {
        (row["asset_key"], row["dagster_event_type"]): (event, event_id)
        for event, row, event_id in zip(events, rows, ids, strict=True)
    }
    yield from sorted(newest.values(), key=lambda pair: pair[1])


def _copy(conn: Any, table: Any, rows: Sequence[dict[str, Any]]) -> list[int]:
    """COPY rows of the same columns into a table and return their ids, which rise in the order of the rows."""
    with conn.connection.cursor() as cursor:
        cursor.execute(
            "select nextval(pg_get_serial_sequence(%s, 'id')) from generate_series(1, %s)",
            [table.fullname, len(rows)],
        )
        ids = [number for (number,) in cursor.fetchall()]
        lines = [
            "\t".join([str(number), *map(_copy_text, row.values())])
            for number, row in zip(ids, rows, strict=True)
        ]
        into = f"copy {table.fullname} (id, {', '.join(rows[0])}) from stdin"
        cursor.copy_expert(into, io.StringIO("\n".join(lines) + "\n"))
    return ids


def _copy_text(value: Any) -> str:
    """A value as COPY's text format has it."""
    if value is None:
        return r"\N"
    text = str(value)
    for character, escaped in _ESCAPED:
        text = text.replace(character, escaped)
    return text
