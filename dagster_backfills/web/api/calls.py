"""A route for programs: who may call it, its body, and a plain function that answers. Not here: what is answered."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, TypeVar

from pydantic import BaseModel, ConfigDict, ValidationError
from pydantic.alias_generators import to_camel
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from dagster_backfills.web.actions import Actions
from dagster_backfills.web.auth import Identity, require
from dagster_backfills.web.database import Database
from dagster_backfills.web.limits import json_body
from dagster_backfills.web.refusals import Refused, answer


class Body(BaseModel):
    """What a request may say, in the applications' spelling. What is not known is refused: it is a slip of the pen."""

    model_config = ConfigDict(extra="forbid", alias_generator=to_camel)


Model = TypeVar("Model", bound=Body)


@dataclass
class Call:
    """One request, admitted and read."""

    request: Request
    who: Identity
    body: dict[str, Any] = field(default_factory=dict)

    @property
    def actions(self) -> Actions:
        return self.request.app.state.actions

    @property
    def database(self) -> Database:
        return self.request.app.state.database

    @property
    def by(self) -> str:
        """What a run keeps of who launched it."""
        return self.who.name

    def path(self, name: str) -> str:
        return str(self.request.path_params[name])

    def read(self, model: type[Model]) -> Model:
        """The body as its model. Raises `Refused` (422) that names the field that is wrong."""
        return parsed(model, self.body)

    def query(self, model: type[Model]) -> Model:
        """The query as its model."""
        return parsed(model, dict(self.request.query_params))


def parsed(model: type[Model], given: dict[str, Any]) -> Model:
    try:
        return model.model_validate(given)
    except ValidationError as error:
        first = error.errors()[0]
        name = ".".join(str(part) for part in first["loc"])
        known = ", ".join(f.alias or n for n, f in model.model_fields.items())
        raise Refused(422, f"{name}: {first['msg']}.", f"Fields: {known or 'none'}.") from None


def call(path: str, scope: str, answers: Callable[[Call], Any], *methods: str, status: int = 200) -> Route:
    """A route of which `answers` says the data, or the whole response. It runs in a thread."""

    async def endpoint(request: Request) -> Response:
        who = require(request, scope)
        body = await json_body(request) if request.method in ("POST", "PUT") else {}
        found = await run_in_threadpool(answers, Call(request, who, body))
        return found if isinstance(found, Response) else answer(found, status)

    return Route(path, endpoint, methods=list(methods) or ["GET"], name=answers.__name__)


def camel(row: dict[str, Any]) -> dict[str, Any]:
    """A row's names in the applications' spelling."""
    return {to_camel(name): value for name, value in row.items()}
