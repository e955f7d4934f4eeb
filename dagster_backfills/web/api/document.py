"""`/openapi.json`, built from the routes: paths, parameters, bodies, responses and their models."""

import re
from collections.abc import Mapping
from functools import cache
from http import HTTPStatus
from inspect import getdoc
from typing import Any

from pydantic.json_schema import models_json_schema

from dagster_backfills.web.api import backfills, cron, health, imports, jobs, uploads
from dagster_backfills.web.api.calls import JSON, Answer, Error, Operation, Query
from dagster_backfills.web.auth import READING
from dagster_backfills.web.call import Call

_ABOUT = """Imports, background jobs, the scoring chain, and plan, run, status and undo of any backfill. Anything that
takes time is a Dagster run: the response names it and gives its current status. Errors are {error, hint, requestId}."""
Schemas = Mapping[Any, Any]  # by model


@cache
def document() -> dict[str, Any]:
    """The OpenAPI document."""
    taken = {model for each in routes for model in each.takes.values() if model}
    given = {Error, *(model for each in routes for model in each.gives.values() if isinstance(model, type))}
    modes: list[tuple[Any, Any]] = [(model, "validation") for model in taken]
    modes += [(model, "serialization") for model in given]
    found, defined = models_json_schema(modes, ref_template="#/components/schemas/{model}")
    schemas = {model: schema for (model, _), schema in found.items()}
    paths: dict[str, Any] = {}
    for each in routes:
        for method in each.documented:
            paths.setdefault(each.path, {})[method.lower()] = _operation(each, method, schemas)
    return {
        "openapi": "3.1.0",
        "info": {"title": "backfills", "version": "1", "description": _ABOUT},
        "security": [{"bearer": []}],
        "paths": paths,
        "components": {
            "securitySchemes": {"bearer": {"type": "http", "scheme": "bearer"}},
            "schemas": defined["$defs"],
        },
    }


def _operation(route: Operation, method: str, schemas: Schemas) -> dict[str, Any]:
    """The operation object of one route and method."""
    summary = " ".join((getdoc(route.answers) or "").split())
    needs = f"{route.scope}:read" if method in READING else route.scope
    query = route.model.model_json_schema() if route.model and issubclass(route.model, Query) else {}
    responses = {
        str(code): {"description": HTTPStatus(code).phrase} | _content(gives, schemas)
        for code, gives in route.gives.items()
    }
    error = {"description": "An error, with a hint on how to fix it."} | _content(Error, schemas)
    takes = route.takes if method not in READING else {}
    return {
        "summary": f"{summary} Scope: {needs}." if route.scope else summary,
        "parameters": [
            *(
                {"name": name, "in": "path", "required": True, "schema": {"type": "string"}}
                for name in re.findall(r"{(\w+)}", route.path)
            ),
            *(
                {"name": name, "in": "query", "schema": schema}
                for name, schema in query.get("properties", {}).items()
            ),
        ],
        **({"requestBody": _content(takes, schemas)} if takes else {}),
        "responses": {**responses, "default": error},
        **({} if route.scope else {"security": []}),
    }


def _content(body: Any, schemas: Schemas) -> dict[str, Any]:
    """The content object of a body: a model as JSON, models by media type, or media types without a model."""
    kinds = (
        {JSON: body} if isinstance(body, type) else body if isinstance(body, Mapping) else dict.fromkeys(body)
    )
    content = {kind: {"schema": schemas[model]} if model else {} for kind, model in kinds.items()}
    return {"content": content} if content else {}


def openapi(call: Call) -> Any:
    """Return this document."""
    return document()


# `/import/backfill/uploads` must come before `/import/backfill/{job}`.
routes: list[Operation] = [
    Operation("/openapi.json", "", openapi, gives={200: Answer}),
    *health.routes, *uploads.routes, *imports.routes, *jobs.routes, *cron.routes, *backfills.routes,
]  # fmt: skip
