"""The kinds of work: a function and a pydantic model each, found in the modules that hold them. Not here: the work."""

import importlib
import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from typing import Any, Literal

from pydantic import BaseModel, ValidationError

from dagster_backfills.domains.queue.errors import InvalidJobInput, UnknownJobType

Handler = Callable[..., Any]
_BUILT_IN = "dagster_backfills.domains.queue.handlers"


@dataclass(frozen=True)
class JobType:
    """One kind of work.

    `handler` takes a `JobContext` and returns what becomes `output_data`. With `isolation="process"` it must stand at
    the top of its module, and a cancel or `timeout` (seconds) ends it whatever it does; a thread costs next to
    nothing, and its handler must report progress to see that it was cancelled. `output_model` says what a job that
    follows may take from the output. `observed`: each result is shown in Dagster.
    """

    name: str
    handler: Handler
    input_model: type[BaseModel] | None = None
    output_model: type[BaseModel] | None = None
    isolation: Literal["process", "thread"] = "thread"
    timeout: float | None = None
    max_retries: int = 3
    observed: bool = False

    def parse(self, input_data: Any, *, partial: bool = False) -> Any:
        """The input as its model; the plain dict for a type that has none. `partial`: what is not there may come from
        the step before.

        Raises InvalidJobInput, naming the fields.
        """
        if self.input_model is None:
            return input_data
        try:
            return self.input_model.model_validate(input_data)
        except ValidationError as error:
            if wrong := describe(error, missing=not partial):
                fields = f"Fields: {', '.join(self.input_model.model_fields)}."
                raise InvalidJobInput(f"{self.name}: {wrong}.", fields) from None


def job_type(
    input_model: type[BaseModel] | None = None,
    output_model: type[BaseModel] | None = None,
    *,
    name: str = "",
    isolation: Literal["process", "thread"] = "process",
    timeout: float | None = 3600,
    max_retries: int = 3,
    observed: bool = False,
) -> Callable[[Handler], Handler]:
    """Make the decorated function the handler of a job type, named like it where `name` is left out."""

    def mark(handler: Handler) -> Handler:
        named = name or handler.__name__
        settings = (isolation, timeout, max_retries, observed)
        handler.job_type = JobType(named, handler, input_model, output_model, *settings)  # type: ignore[attr-defined]
        return handler

    return mark


def describe(error: ValidationError, *, missing: bool = True) -> str:
    """Each wrong field with its reason, in one sentence; never the value, which may be long or secret."""
    reasons = []
    for problem in error.errors(include_url=False, include_input=False):
        if not missing and problem["type"] == "missing" and len(problem["loc"]) == 1:
            continue
        field = ".".join(str(part) for part in problem["loc"]) or "the whole"
        reasons.append(f"field {field}: {problem['msg'][:1].lower()}{problem['msg'][1:]}")
    return "; ".join(reasons)


class Registry:
    """The types that a worker knows. `problems` has what is wrong with a module of types, by its name."""

    def __init__(self, types: Iterable[JobType] = (), problems: Mapping[str, str] | None = None) -> None:
        self._types = {t.name: t for t in types}
        self.problems = dict(problems or {})

    def __iter__(self) -> Iterator[JobType]:
        return iter(self._types.values())

    def get(self, name: str) -> JobType:
        """Raises UnknownJobType, naming the types there are, and what keeps others from being known."""
        if name in self._types:
            return self._types[name]
        broken = "".join(f" {problem}" for problem in self.problems.values())
        raise UnknownJobType(
            f"Unknown job type: {name}.{broken}", hint=known_hint(name, self._types), retryable=bool(broken)
        ) from None


def known_hint(name: str, known: Iterable[str]) -> str:
    """What comes close to `name`, and all that there is."""
    names = sorted(known)
    close = get_close_matches(name, names, n=1)
    return (f"Did you mean {close[0]}? " if close else "") + f"Known: {', '.join(names) or 'none'}."


def background_job_types(environment: Mapping[str, str] | None = None) -> Registry:
    """The three kinds of media work, and those of the modules that QUEUE_HANDLERS names (comma-separated).

    A module that can't be used is named in `problems`; all others are there.
    """
    named = (os.environ if environment is None else environment).get("QUEUE_HANDLERS", "")
    types: dict[str, JobType] = {}
    problems = {}
    for module in (_BUILT_IN, *(part.strip() for part in named.split(",") if part.strip())):
        try:
            for kind in types_of(module):
                if types.setdefault(kind.name, kind) is not kind:
                    there = types[kind.name].handler.__module__
                    raise ValueError(f"its type {kind.name} is one of {there} already")
        # Whatever an import may raise: the module is somebody else's.
        except (Exception, SystemExit) as error:
            reason = f"{type(error).__name__}: {error}"
            problems[module] = f"The module {module} of QUEUE_HANDLERS can't be used: {reason}."
    return Registry(types.values(), problems)


def types_of(module: str) -> list[JobType]:
    """The types whose handlers this module has. Raises ValueError where there are none."""
    loaded = importlib.import_module(module)
    marked = (getattr(thing, "job_type", None) for thing in vars(loaded).values() if callable(thing))
    found = [kind for kind in marked if isinstance(kind, JobType)]
    if not found:
        raise ValueError("it has no function with @job_type")
    return found


def fields_of(kind: JobType) -> dict[str, Any]:
    """A type's fields as `jobs.job_types` has them, so that SQL refuses what the model does."""
    model, output = kind.input_model, kind.output_model
    free = model is None or model.model_config.get("extra") == "allow"
    schema = model.model_json_schema() if model else {}
    return {
        "job_type": kind.name,
        "input_fields": None
        if free
        else {n: _json_type(p, schema) for n, p in schema.get("properties", {}).items()},
        "required_fields": schema.get("required", []),
        "output_fields": list(output.model_fields) if output else [],
        "max_retries": kind.max_retries,
    }


def _json_type(part: dict[str, Any], schema: dict[str, Any]) -> str | None:
    """The JSON type of a field; None where several may stand there."""
    if "$ref" in part:
        part = schema["$defs"][part["$ref"].rsplit("/", 1)[-1]]
    options = [p for p in part.get("anyOf", [part]) if p.get("type") != "null"]
    if len(options) == 1 and options[0] is not part:
        return _json_type(options[0], schema)
    name = part.get("type")
    return "number" if name == "integer" else name
