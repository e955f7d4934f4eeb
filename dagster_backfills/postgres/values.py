"""Values that Postgres has and Python has not, for whoever only shows them: endless and very distant times, long
intervals, JSON that no parser reads. Not for computing: there such a value must be an error. And JSON, to and fro.
"""

import json
from collections.abc import Callable
from datetime import UTC, date, datetime, timedelta, tzinfo
from decimal import Decimal
from functools import partial
from math import isfinite
from typing import Any, TypeVar

import psycopg
from psycopg.abc import AdaptContext, Buffer
from psycopg.adapt import Loader
from psycopg.types import datetime as times
from psycopg.types.json import JsonbLoader, JsonLoader

from dagster_backfills.errors import UserError


class _Distant:
    """Shown as Postgres writes it; compared as the nearest value that Python has."""

    written: str

    def __str__(self) -> str:
        return self.written

    def isoformat(self, *_: Any, **__: Any) -> str:
        """What Postgres writes, whatever form is asked for."""
        return self.written


_Value = TypeVar("_Value", bound=_Distant)


class DistantTime(_Distant, datetime):
    """A time before the year 1 or after 9999, or without end."""

    def astimezone(self, tz: Any = None) -> "DistantTime":
        """Itself: it has no other zone."""
        return self


class DistantDate(_Distant, date):
    """A date before the year 1 or after 9999, or without end."""


class LongInterval(_Distant, timedelta):
    """An interval beyond Python's own, of 2.7 million years."""


class UnreadableJson(str):
    """JSON as Postgres writes it, with a number or a nesting that Python's parser refuses."""


def plain(value: Any) -> Any:
    """The value in JSON's own types, for an answer or a line of output."""
    if value is None or isinstance(value, bool | int | str):
        return value
    if isinstance(value, dict):
        return {name: plain(each) for name, each in value.items()}
    if isinstance(value, list | tuple):
        return [plain(each) for each in value]
    if isinstance(value, datetime | date):
        return value.isoformat()
    if isinstance(value, timedelta) and not isinstance(value, LongInterval):
        return value.total_seconds()
    if isinstance(value, float | Decimal) and isfinite(value):
        return int(value) if isinstance(value, Decimal) and value == int(value) else float(value)
    return str(value)


def json_object(text: str | bytes, what: str) -> dict[str, Any]:
    """What somebody wrote, as a JSON object. Raises UserError, which calls it `what`, where it is none."""
    example = 'Write it so: {"field": "value"}'
    try:
        found = json.loads(text, parse_constant=_refuse_constant)
    except (ValueError, RecursionError) as error:
        raise UserError(f"{what} is not JSON: {error}.", example) from None
    if not isinstance(found, dict):
        raise UserError(f"{what} must be a JSON object.", example)
    return found


def _refuse_constant(name: str) -> None:
    raise ValueError(f"{name} is no number of JSON's")


def in_words(value: Any) -> str:
    """The value in a line of text: null, true and lists as JSON writes them."""
    value = plain(value)
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def show_every_value(context: AdaptContext) -> None:
    """Have this connection or cursor load every value that a table may hold."""
    for name, loader in _LOADERS.items():
        context.adapters.register_loader(name, loader)


def _early(text: str) -> bool:
    return text.endswith("BC") or text.startswith("-")


def _time(text: str, zone: tzinfo | None = None) -> DistantTime:
    nearest = datetime.min if _early(text) else datetime.max
    return _written(DistantTime.combine(nearest.date(), nearest.time(), zone), text)


def _date(text: str) -> DistantDate:
    return _written(DistantDate.fromordinal((date.min if _early(text) else date.max).toordinal()), text)


def _interval(text: str) -> LongInterval:
    nearest = timedelta.min if _early(text) else timedelta.max
    return _written(LongInterval(nearest.days, nearest.seconds, nearest.microseconds), text)


def _written(found: _Value, text: str) -> _Value:
    found.written = text
    return found


def _or(usual: type[Loader], otherwise: Callable[[str], Any]) -> type[Loader]:
    """A loader that falls back on `otherwise` for what the usual one refuses."""

    class Fallback(usual):  # type: ignore[misc, valid-type]
        def load(self, data: Buffer) -> Any:
            try:
                return super().load(data)
            except (psycopg.DataError, ValueError, RecursionError, OverflowError):
                return otherwise(bytes(data).decode())

    return Fallback


_LOADERS: dict[str, type[Loader]] = {
    "date": _or(times.DateLoader, _date),
    "timestamp": _or(times.TimestampLoader, _time),
    "timestamptz": _or(times.TimestamptzLoader, partial(_time, zone=UTC)),
    "interval": _or(times.IntervalLoader, _interval),
    "json": _or(JsonLoader, UnreadableJson),
    "jsonb": _or(JsonbLoader, UnreadableJson),
}
