"""How much a request may bring, and how many one may send. In this process: each process counts for itself."""

import json
import time
from collections import OrderedDict
from collections.abc import Callable
from typing import Any

from starlette.requests import Request
from starlette.types import Message, Receive

from dagster_backfills.web.refusals import Refused

SMALL_BODY = 1024 * 1024
MULTIPART_EXTRA = 64 * 1024
_REMEMBERED = 10_000
_BURST_SECONDS = 4


class Buckets:
    """A bucket of tokens for each name: `rate` a second flow in, four seconds' worth lie in it at most."""

    def __init__(self, rate: float, now: Callable[[], float] = time.monotonic) -> None:
        self.rate, self.burst, self._now = rate, max(1.0, rate * _BURST_SECONDS), now
        self._levels: OrderedDict[str, tuple[float, float]] = OrderedDict()

    def take(self, name: str) -> float:
        """Take one; 0 where there was one, else the seconds until there is."""
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
    """The request's body, cut off with 413 where it is longer than `most` bytes, whatever length was declared."""
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
    return Refused(413, f"More than {most:,} bytes are not taken here.", "", {"Connection": "close"})


async def json_body(request: Request) -> dict[str, Any]:
    """The request's body as a JSON object; an empty body is an empty one."""
    body = bytearray()
    async for chunk in request.stream():  # where files are taken, far more may come
        body += chunk
        if len(body) > SMALL_BODY:
            raise too_large(SMALL_BODY)
    if not body.strip():
        return {}
    try:
        data = json.loads(body, parse_constant=_refuse_constant)
    except (ValueError, RecursionError) as error:
        raise Refused(400, f"The body is not JSON: {error}.", 'Write it so: {"field": "value"}') from None
    if not isinstance(data, dict):
        raise Refused(400, "The body must be a JSON object.", 'Write it so: {"field": "value"}')
    return data


def _refuse_constant(name: str) -> None:
    raise ValueError(f"{name} is no number of JSON's")
