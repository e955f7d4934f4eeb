"""Rendering templates to HTML, with filters for numbers, times and durations. Values are escaped."""

import json
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from functools import cache
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup
from starlette.requests import Request
from starlette.responses import HTMLResponse

_WEB = Path(__file__).parents[1]
_NOTHING = "–"
_HEADERS = {
    "Cache-Control": "no-store",
    "Content-Security-Policy": "default-src 'none'; style-src 'self'; script-src 'self'; connect-src 'self';"
    " img-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'",
}


def html(
    request: Request,
    template: str,
    status: int = 200,
    headers: Mapping[str, str] | None = None,
    **context: Any,
) -> HTMLResponse:
    """Render a template as the response to a request."""
    shared = {"user": request.state.identity.name, "path": request.url.path, "now": datetime.now(UTC)}
    text = _environment().get_template(template).render(**shared, **context)
    return HTMLResponse(text, status, {**_HEADERS, **(headers or {})})


@cache
def _environment() -> Environment:
    environment = Environment(
        loader=FileSystemLoader(_WEB / "templates"),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=StrictUndefined,
    )
    filters = (number, moment, breakable, lasting, reference)
    environment.filters.update({each.__name__: each for each in filters})
    environment.globals.update(link=link)
    return environment


def link(path: str, **query: Any) -> str:
    """A URL with those query parameters that have a value."""
    given = {name: value for name, value in query.items() if value not in (None, "")}
    return f"{path}?{urlencode(given)}" if given else path


def number(value: int | None) -> str:
    return _NOTHING if value is None else f"{value:,}"


def moment(value: datetime | None) -> str:
    """A time to the second, in UTC."""
    if value is None:
        return _NOTHING
    at = value.astimezone(UTC)
    shown = str(at) if type(at) is not datetime else f"{at:%Y-%m-%d %H:%M:%S} UTC"
    return Markup('<time datetime="{}">{}</time>').format(at.isoformat(), shown)


def breakable(name: str) -> Markup:
    """A name that may wrap after its underscores."""
    return Markup("_<wbr>").join(name.split("_"))


def lasting(value: timedelta | float) -> str:
    """A duration in its two largest units."""
    seconds = round(value.total_seconds() if isinstance(value, timedelta) else value)
    for name, unit, below, smaller in (("d", 86400, "h", 3600), ("h", 3600, "min", 60), ("min", 60, "s", 1)):
        if seconds >= unit:
            return f"{seconds // unit} {name} {seconds % unit // smaller} {below}"
    return f"{seconds} s" if seconds else "under 1 s"


def reference(value: Any) -> str:
    """The last 8 characters of an ID. The first ones are the same for IDs created at about the same time."""
    return str(value)[-8:]


def pretty(value: Any) -> str:
    """Indented JSON, or "" if there is none."""
    if value is None or isinstance(value, str):
        return value or ""
    return json.dumps(value, ensure_ascii=False, indent=2) if value else ""
