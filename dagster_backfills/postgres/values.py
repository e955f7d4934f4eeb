"""Loading and formatting values for display, including Postgres values that Python can't represent: infinite and very
distant times, the time 24:00, long intervals, and JSON that Python can't parse. Computations must raise an error for
such values.
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
    """Shown as Postgres writes it; compares as the nearest value that Python can represent."""

    written: str

    def __str__(self) -> str:
        return self.written

    def __deepcopy__(self, memo: Any) -> Any:
        return self  # a copy would lack the text

    def isoformat(self, *_: Any, **__: Any) -> str:
        """Postgres' text, whatever the arguments."""
        return self.written


_Value = TypeVar("_Value", bound=_Distant)


class DistantTime(_Distant, datetime):
    """A timestamp before the year 1 or after 9999, or infinity."""

    def astimezone(self, tz: Any = None) -> "DistantTime":
        """Returns itself, because it can't be converted."""
        return self


class DistantDate(_Distant, date):
    """A date before the year 1 or after 9999, or infinity."""


class LongInterval(_Distant, timedelta):
    """An interval beyond the range of Python's timedelta, 2.7 million years."""


class UnreadableJson(str):
    """JSON as Postgres writes it, with a number or nesting depth that Python's parser can't read."""


def plain(value: Any) -> Any:
    """The value in types that JSON has."""
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
    if isinstance(value, bytes):
        return f"\\x{value.hex()}"
    if isinstance(value, float | Decimal) and isfinite(value):
        return int(value) if isinstance(value, Decimal) and value == int(value) else float(value)
    return str(value)


def json_object(text: str | bytes, what: str) -> dict[str, Any]:
    """Parse user input as a JSON object. Raises UserError, which calls the input `what`, if it is not one."""
    example = 'For example: {"field": "value"}'
    try:
        parsed = json.loads(text, parse_constant=_refuse_constant)
    except (ValueError, RecursionError) as error:
        raise UserError(f"{what} is not JSON: {error}.", example) from None
    if not isinstance(parsed, dict):
        raise UserError(f"{what} must be a JSON object.", example)
    return parsed


def _refuse_constant(name: str) -> None:
    raise ValueError(f"{name} is not a JSON number")


def in_words(value: Any) -> str:
    """The value as one line of text. Null, booleans, lists and objects are written as JSON."""
    value = plain(value)
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def show_every_value(context: AdaptContext) -> None:
    """Make this connection or cursor load every value that Postgres can store."""
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


def _written(value: _Value, text: str) -> _Value:
    value.written = text
    return value


def _with_fallback(loader: type[Loader], fallback: Callable[[str], Any]) -> type[Loader]:
    """A loader that calls `fallback` with the text of values that `loader` can't load."""

    class FallbackLoader(loader):  # type: ignore[misc, valid-type]
        def load(self, data: Buffer) -> Any:
            try:
                return super().load(data)
            except (psycopg.DataError, ValueError, RecursionError, OverflowError):
                return fallback(bytes(data).decode())

    return FallbackLoader


_LOADERS: dict[str, type[Loader]] = {
    "date": _with_fallback(times.DateLoader, _date),
    "timestamp": _with_fallback(times.TimestampLoader, _time),
    "timestamptz": _with_fallback(times.TimestamptzLoader, partial(_time, zone=UTC)),
    "time": _with_fallback(times.TimeLoader, str),  # 24:00:00
    "timetz": _with_fallback(times.TimetzLoader, str),
    "interval": _with_fallback(times.IntervalLoader, _interval),
    "json": _with_fallback(JsonLoader, UnreadableJson),
    "jsonb": _with_fallback(JsonbLoader, UnreadableJson),
}
