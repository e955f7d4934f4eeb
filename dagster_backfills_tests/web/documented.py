"""Compares responses with /openapi.json."""

import re
from functools import cache
from typing import Any

import httpx
from jsonschema import Draft202012Validator

from dagster_backfills.web.api.document import document


@cache
def operations() -> list[tuple[re.Pattern[str], str, dict[str, Any]]]:
    """Path, method and responses; paths without parameters first."""
    paths = sorted(document()["paths"].items(), key=lambda item: "{" in item[0])
    return [
        (re.compile(re.sub(r"\{\w+\}", "[^/]+", path)), method.upper(), operation["responses"])
        for path, operations in paths
        for method, operation in operations.items()
        if method != "parameters"
    ]


def is_as_documented(response: httpx.Response) -> None:
    """Fails unless the document has this path, method, status and body. Skips paths without a route."""
    path, method = response.request.url.path, response.request.method
    responses = next((r for pattern, m, r in operations() if m == method and pattern.fullmatch(path)), None)
    response.read()
    kind = response.headers.get("content-type", "").split(";")[0]
    if responses is None:
        assert response.status_code in (401, 403, 404, 405), f"{method} {path} is not in the document"
        return
    code = str(response.status_code)
    assert code in responses or response.status_code >= 400, f"{method} {path} answers {code}"
    documented = _resolved(responses.get(code, responses["default"]))
    if response.status_code >= 400 and "error" in response.text[:20]:
        documented = _resolved(responses["default"])
    if "content" not in documented or method == "HEAD":
        assert response.content == b""
        return
    assert kind in documented["content"], f"{method} {path} answers with {kind}"
    if kind == "application/json":
        schema = {**documented["content"][kind]["schema"], "components": document()["components"]}
        Draft202012Validator(schema).validate(response.json())


def _resolved(node: dict[str, Any]) -> dict[str, Any]:
    found: Any = node
    while "$ref" in found:
        name = found["$ref"].rsplit("/", 2)
        found = document()["components"][name[-2]][name[-1]]
    return found
