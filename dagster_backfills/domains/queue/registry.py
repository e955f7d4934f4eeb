"""The kinds of work: one registered handler each. Not here: the handlers themselves."""

import importlib
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any, Literal

from pydantic import BaseModel, ValidationError

from dagster_backfills.domains.queue import schemas
from dagster_backfills.domains.queue.errors import InvalidJobInput, UnknownJobType

Handler = Callable[..., Any]
_HANDLERS = "dagster_backfills.domains.queue.handlers"


@dataclass(frozen=True)
class JobType:
    """One kind of work.

    `handler` takes a `JobContext` and returns what becomes `output_data`; named as "module:function" where it runs
    in a process of its own (`isolation="process"`), which a cancel can end whatever it does. A handler in a thread
    costs next to nothing, and must report progress to see that it was cancelled. `timeout` in seconds.
    """

    name: str
    handler: Handler | str
    input_model: type[BaseModel] | None = None
    isolation: Literal["process", "thread"] = "thread"
    timeout: float | None = None
    media: bool = False

    def load_handler(self) -> Handler:
        """The function itself."""
        if callable(self.handler):
            return self.handler
        module, _, function = self.handler.partition(":")
        loaded: Handler = getattr(importlib.import_module(module), function)
        return loaded

    def parse(self, input_data: dict[str, Any]) -> Any:
        """The input as its model; the plain dict for a type that has none.

        Raises InvalidJobInput, naming the fields.
        """
        if self.input_model is None:
            return input_data
        try:
            return self.input_model.model_validate(input_data)
        except ValidationError as error:
            raise InvalidJobInput(
                f"{self.name}: {describe(error)}.",
                hint=f"Fields: {', '.join(self.input_model.model_fields)}.",
            ) from None


def describe(error: ValidationError) -> str:
    """Each wrong field with its reason, in one sentence; never the value, which may be long or secret."""
    reasons = []
    for problem in error.errors(include_url=False, include_input=False):
        field = ".".join(str(part) for part in problem["loc"]) or "the whole"
        reasons.append(f"field {field}: {problem['msg'][:1].lower()}{problem['msg'][1:]}")
    return "; ".join(reasons)


class Registry:
    """The types that a worker knows."""

    def __init__(self, types: Iterable[JobType] = ()) -> None:
        self._types = {t.name: t for t in types}

    def __iter__(self) -> Iterator[JobType]:
        return iter(self._types.values())

    def get(self, name: str) -> JobType:
        """Raises UnknownJobType, naming the types there are."""
        try:
            return self._types[name]
        except KeyError:
            known = ", ".join(sorted(self._types)) or "none"
            raise UnknownJobType(f"Unknown job type: {name}.", hint=f"Known: {known}.") from None


def background_job_types() -> Registry:
    """The three kinds of media work."""

    def media(name: str, function: str, model: type[BaseModel], timeout: float) -> JobType:
        return JobType(
            name, f"{_HANDLERS}:{function}", model, isolation="process", timeout=timeout, media=True
        )

    return Registry(
        [
            media("transcription", "transcribe", schemas.TranscriptionInput, 2 * 3600),
            media("sop_generation", "generate_sop", schemas.SopInput, 1800),
            media("mux_upload", "upload_to_mux", schemas.MuxInput, 4 * 3600),
        ]
    )
