"""Job types: each is a handler function with a pydantic model of its input. Not here: the handlers (`handlers`)."""

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
    """One type of background job.

    `handler` takes a `JobContext` and returns the job's `output_data`.

    `isolation="process"` starts a process for each job, which is killed on cancellation or after `timeout` seconds.
    The handler must then be a top-level function. `isolation="thread"` has almost no overhead, but a handler only
    notices a cancellation when it reports progress.

    `output_model` lists the fields that a following job can take from the output. With `observed`, each result is
    shown in Dagster.
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
        """Validate the input: returns an instance of `input_model`, or the dict itself for a type without one.

        `partial` allows missing fields, which the previous step may provide. Raises InvalidJobInput, naming the fields.
        """
        if self.input_model is None:
            return input_data
        try:
            return self.input_model.model_validate(input_data)
        except ValidationError as error:
            if problems := describe(error, missing=not partial):
                fields = f"Fields: {', '.join(self.input_model.model_fields)}."
                raise InvalidJobInput(f"{self.name}: {problems}.", fields) from None


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
    """Make the decorated function the handler of a job type. `name` defaults to the function's name."""

    def decorate(handler: Handler) -> Handler:
        type_name = name or handler.__name__
        settings = (isolation, timeout, max_retries, observed)
        handler.job_type = JobType(type_name, handler, input_model, output_model, *settings)  # type: ignore[attr-defined]
        return handler

    return decorate


def describe(error: ValidationError, *, missing: bool = True) -> str:
    """Each invalid field with its reason, on one line. Never the value, which may be long or secret."""
    reasons = []
    for problem in error.errors(include_url=False, include_input=False):
        if not missing and problem["type"] == "missing" and len(problem["loc"]) == 1:
            continue
        field = ".".join(str(part) for part in problem["loc"]) or "(root)"
        reasons.append(f"field {field}: {problem['msg'][:1].lower()}{problem['msg'][1:]}")
    return "; ".join(reasons)


class Registry:
    """The job types that a worker can run. `problems` maps each module that could not be loaded to the reason."""

    def __init__(self, types: Iterable[JobType] = (), problems: Mapping[str, str] | None = None) -> None:
        self._types = {t.name: t for t in types}
        self.problems = dict(problems or {})

    def __iter__(self) -> Iterator[JobType]:
        return iter(self._types.values())

    def get(self, name: str) -> JobType:
        """Raises UnknownJobType, naming the known types and the modules that could not be loaded."""
        if name in self._types:
            return self._types[name]
        problems = "".join(f" {problem}" for problem in self.problems.values())
        raise UnknownJobType(
            f"Unknown job type: {name}.{problems}",
            hint=known_hint(name, self._types),
            retryable=bool(problems),
        ) from None


def known_hint(name: str, known: Iterable[str]) -> str:
    """A hint with the known name closest to `name`, and all known names."""
    names = sorted(known)
    close = get_close_matches(name, names, n=1)
    return (f"Did you mean {close[0]}? " if close else "") + f"Known: {', '.join(names) or 'none'}."


def background_job_types(environment: Mapping[str, str] | None = None) -> Registry:
    """The three built-in types, and those of the modules listed in QUEUE_HANDLERS (comma-separated).

    A module that can't be loaded is reported in `problems`, and does not affect the others.
    """
    modules = (os.environ if environment is None else environment).get("QUEUE_HANDLERS", "")
    types: dict[str, JobType] = {}
    problems = {}
    for module in (_BUILT_IN, *(part.strip() for part in modules.split(",") if part.strip())):
        try:
            for kind in types_of(module):
                if types.setdefault(kind.name, kind) is not kind:
                    owner = types[kind.name].handler.__module__
                    raise ValueError(f"its job type {kind.name} is already defined in {owner}")
        # An import of someone else's module can raise anything.
        except (Exception, SystemExit) as error:
            reason = f"{type(error).__name__}: {error}"
            problems[module] = f"The module {module} in QUEUE_HANDLERS can't be loaded: {reason}."
    return Registry(types.values(), problems)


def types_of(module: str) -> list[JobType]:
    """The types whose handlers this module defines. Raises ValueError if there are none."""
    loaded = importlib.import_module(module)
    candidates = (getattr(member, "job_type", None) for member in vars(loaded).values() if callable(member))
    types = [kind for kind in candidates if isinstance(kind, JobType)]
    if not types:
        raise ValueError("it has no function decorated with @job_type")
    return types


def fields_of(kind: JobType) -> dict[str, Any]:
    """A type's row in `jobs.job_types`, which the SQL functions validate inputs against."""
    model, output = kind.input_model, kind.output_model
    any_fields = model is None or model.model_config.get("extra") == "allow"
    schema = model.model_json_schema() if model else {}
    return {
        "job_type": kind.name,
        "input_fields": None
        if any_fields
        else {n: _json_type(p, schema) for n, p in schema.get("properties", {}).items()},
        "required_fields": schema.get("required", []),
        "output_fields": list(output.model_fields) if output else [],
        "max_retries": kind.max_retries,
    }


def _json_type(part: dict[str, Any], schema: dict[str, Any]) -> str | None:
    """The JSON type of a field, or None if it accepts several."""
    if "$ref" in part:
        part = schema["$defs"][part["$ref"].rsplit("/", 1)[-1]]
    options = [p for p in part.get("anyOf", [part]) if p.get("type") != "null"]
    if len(options) == 1 and options[0] is not part:
        return _json_type(options[0], schema)
    name = part.get("type")
    return "number" if name == "integer" else name
