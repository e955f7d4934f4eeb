"""Limits on request sizes and rates. Rates are counted per process."""

import time
from collections import OrderedDict
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

from starlette.datastructures import UploadFile
from starlette.requests import Request
from starlette.types import Message, Receive

from dagster_backfills.postgres.values import json_object
from dagster_backfills.web.refusals import Refused

SMALL_BODY = 1024 * 1024
MULTIPART_EXTRA = 64 * 1024
_REMEMBERED = 10_000
_BURST_SECONDS = 4
_FORM_FIELDS, _FORM_FIELD_BYTES = 20, 8 * 1024


class Buckets:
    """A token bucket for each name: filled with `rate` tokens per second, up to four seconds' worth."""

    def __init__(self, rate: float, now: Callable[[], float] = time.monotonic) -> None:
        self.rate, self.burst, self._now = rate, max(1.0, rate * _BURST_SECONDS), now
        self._levels: OrderedDict[str, tuple[float, float]] = OrderedDict()

    def take(self, name: str) -> float:
        """Take a token. Returns 0, or the seconds until one is available."""
        now = self._now()
        level, at = self._levels.pop(name, (self.burst, now))
        level = min(self.burst, level + (now - at) * self.rate)
        taken = level >= 1
        self._levels[name] = (level - 1 if taken else level, now)
        if len(self._levels) > _REMEMBERED:
            self._levels.popitem(last=False)
        return 0.0 if taken else (1 - level) / self.rate


def too_many(seconds: float) -> Refused:
    after = str(max(1, round(seconds + 0.5)))
    return Refused(429, "Too many requests.", f"Try again in {after} s.", {"Retry-After": after})


def bounded(receive: Receive, most: int, declared: str | None) -> Receive:
    """Limit the request's body to `most` bytes, whatever length was declared. Raises `Refused` (413) beyond."""
    if declared is not None and (not declared.isdigit() or int(declared) > most):
        raise too_large(most)
    seen = 0

    async def counted() -> Message:
        nonlocal seen
        message = await receive()
        seen += len(message.get("body", b""))
        if seen > most:
            raise too_large(most)
        return message

    return counted


def too_large(most: int) -> Refused:
    return Refused(413, f"The request is larger than {most:,} bytes.", "", {"Connection": "close"})


async def json_body(request: Request) -> dict[str, Any]:
    """The request's body as a JSON object. An empty body is an empty object."""
    body = bytearray()
    async for chunk in request.stream():  # routes that also accept files allow larger bodies
        body += chunk
        if len(body) > SMALL_BODY:
            raise too_large(SMALL_BODY)
    return json_object(bytes(body), "The body") if body.strip() else {}


@asynccontextmanager
async def form_of(request: Request) -> AsyncIterator[tuple[UploadFile | None, dict[str, str]]]:
    """A form's `file` (spooled to disk unless small) and its non-empty fields."""
    limits = {"max_files": 1, "max_fields": _FORM_FIELDS, "max_part_size": _FORM_FIELD_BYTES}
    async with request.form(**limits) as form:
        file = form.get("file")
        fields = {name: text.strip() for name, text in form.items() if isinstance(text, str) and text.strip()}
        yield file if isinstance(file, UploadFile) and file.filename else None, fields
