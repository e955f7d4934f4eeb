"""What the event log holds of an event: its JSON. Not here: rows and statements.

Serializing is the largest part of what writing a materialization costs. Those of one batch differ in their partition,
their numbers and their time alone: from the second on, these are put into the text of the first.
"""

import json
import re
from typing import Any

import dagster as dg

# From Unicode's private area, and so in no key or label that means anything.
_SLOT = re.compile(r'"\\ue000(\d+)\\ue000"')


class EventTexts:
    """Serializes events one after the other, as `dg.serialize_value` would."""

    def __init__(self) -> None:
        self._frame: tuple[Any, ...] | None = None
        self._form: _Form | None = None
        self._text = ""

    def of(self, event: dg.EventLogEntry) -> str:
        split = _split(event)
        if split is None:
            return dg.serialize_value(event)
        frame, values = split
        if frame != self._frame:
            self._frame, self._form, self._text = frame, None, dg.serialize_value(event)
            return self._text
        if self._form is None:
            self._form = _Form(self._text, list(frame[-1]))
        return self._form.filled(values) or dg.serialize_value(event)


class _Form:
    """An event's text, open where its numbers (by label), its partition and its timestamp stand."""

    def __init__(self, text: str, labels: list[str]) -> None:
        document = json.loads(text)
        self._parts: list[str] | None = None
        self._order: list[int] = []
        if json.dumps(document) != text:  # JSON of another style than Python's own can't be filled in
            return
        made = document["dagster_event"]["event_specific_data"]["materialization"]
        slots = [(entry["entry_data"], "value") for entry in made["metadata_entries"]]
        if [entry["label"] for entry in made["metadata_entries"]] != labels:
            return
        for number, (place, key) in enumerate([*slots, (made, "partition"), (document, "timestamp")]):
            place[key] = f"\ue000{number}\ue000"
        pieces = _SLOT.split(json.dumps(document))
        self._parts, self._order = pieces[0::2], [int(number) for number in pieces[1::2]]

    def filled(self, values: list[Any]) -> str | None:
        """The text with `values` in their places; None where the form is of no use."""
        if self._parts is None:
            return None
        written = [self._parts[0]]
        for number, part in zip(self._order, self._parts[1:], strict=True):
            written += (json.dumps(values[number]), part)
        return "".join(written)


def _split(event: dg.EventLogEntry) -> tuple[tuple[Any, ...], list[Any]] | None:
    """A partition's materialization as what a batch shares (labels last) and what differs; None for other events.

    Only for metadata of nothing but whole numbers: what a partition's usually is.
    """
    inner = event.dagster_event
    if inner is None or inner.event_type_value != dg.DagsterEventType.ASSET_MATERIALIZATION.value:
        return None
    made = inner.step_materialization_data.materialization
    numbers = [value.value for value in made.metadata.values() if type(value) is dg.IntMetadataValue]
    if len(numbers) != len(made.metadata) or not made.partition or type(made.partition) is not str:
        return None
    frame = (
        event._replace(timestamp=0.0, dagster_event=None),
        inner._replace(event_specific_data=None),
        inner.step_materialization_data.asset_lineage,
        made.asset_key,
        made.description,
        made.tags,
        tuple(made.metadata),
    )
    return frame, [*numbers, made.partition, event.timestamp]
