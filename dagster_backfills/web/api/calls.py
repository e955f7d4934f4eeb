"""Routes of the API: required scope, request model, response models and handler. Not here: the handlers.

`document` builds `/openapi.json` from the routes.
"""

from collections.abc import Callable, Mapping, Sequence
from inspect import iscoroutinefunction, signature
from typing import Any, TypeVar

from pydantic import BaseModel, ConfigDict, ValidationError
from pydantic.alias_generators import to_camel
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from dagster_backfills.web.auth import require
from dagster_backfills.web.call import Call
from dagster_backfills.web.limits import json_body
from dagster_backfills.web.refusals import Refused, answer

JSON = "application/json"


class Body(BaseModel):
    """A request body in camel case. Unknown fields are refused, because they are probably typing errors."""

    model_config = ConfigDict(extra="forbid", alias_generator=to_camel)


class Query(Body):
    """The same for a query string."""


class Answer(BaseModel):
    """A response body in camel case."""

    model_config = ConfigDict(alias_generator=to_camel, populate_by_name=True)


class Error(Answer):
    error: str
    hint: str
    request_id: str


Model = TypeVar("Model", bound=Body)


class Operation(Route):
    """A route whose handler `answers` returns the data or a whole response. It runs in a thread unless it is async.

    The handler's second parameter, if any, is a `Body` or a `Query`. `gives`: response model or media types by status
    code, the usual one first. `takes`: request models by media type, if the handler reads the body itself.
    """

    def __init__(
        self,
        path: str,
        scope: str,
        answers: Callable[..., Any],
        *methods: str,
        gives: Mapping[int, type[Answer] | Sequence[str]],
        takes: Mapping[str, type[Body] | None] | None = None,
    ) -> None:
        self.scope, self.answers, self.gives = scope, answers, gives
        self.documented = methods or ("GET",)
        parameters = list(signature(answers).parameters.values())
        self.model: type[Body] | None = parameters[1].annotation if len(parameters) > 1 else None
        reads_json = self.model is not None and not issubclass(self.model, Query)
        self.takes: Mapping[str, type[Body] | None] = {JSON: self.model} if reads_json else takes or {}
        super().__init__(path, self._answer, methods=list(self.documented), name=answers.__name__)

    async def _answer(self, request: Request) -> Response:
        if self.scope:
            require(request, self.scope)
        body = [] if self.model is None else [await read(self.model, request)]
        if iscoroutinefunction(self.answers):
            result = await self.answers(Call(request), *body)
        else:
            result = await run_in_threadpool(self.answers, Call(request), *body)
        return result if isinstance(result, Response) else answer(result, next(iter(self.gives)))


async def read(model: type[Body], request: Request) -> Body:
    """Parse a request's query string or body into its model."""
    if issubclass(model, Query):
        return parsed(model, dict(request.query_params))
    return parsed(model, await json_body(request))


def parsed(model: type[Model], given: Mapping[str, Any]) -> Model:
    """Validate data against a model. Raises `Refused` (422) that names the invalid field."""
    try:
        return model.model_validate(given)
    except ValidationError as error:
        first = error.errors()[0]
        name = ".".join(str(part) for part in first["loc"])
        known = ", ".join(f.alias or n for n, f in model.model_fields.items())
        raise Refused(422, f"{name}: {first['msg']}.", f"Fields: {known or 'none'}.") from None


def camel(row: Mapping[str, Any]) -> dict[str, Any]:
    """A row with its column names in camel case."""
    return {to_camel(name): value for name, value in row.items()}
