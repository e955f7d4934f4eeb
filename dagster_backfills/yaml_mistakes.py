"""Mistakes in a `defs.yaml` in words, each with its file and line. Not here: what it may say (its pydantic models)."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import yaml
from pydantic import BaseModel, ValidationError, model_validator

from dagster_backfills.errors import UserError, close_to


@dataclass(frozen=True)
class Places:
    """The places of one `defs.yaml`."""

    file: Path

    @cached_property
    def _root(self) -> yaml.Node | None:
        if not self.file.is_file():
            return None
        return next(yaml.compose_all(self.file.read_text(encoding="utf-8")), None)

    def of(self, *path: str | int) -> str:
        """The file, and the line of an attribute: `of("tables", 0, "query")`; else of what it would be in."""
        node, line = self._root, None
        for step in ("attributes", *path):
            found = _step(node, step)
            if found is None:
                break
            line, node = found
        return f"{self.file}" if line is None else f"{self.file}, line {line}"


def _step(node: yaml.Node | None, step: str | int) -> tuple[int, yaml.Node] | None:
    if isinstance(node, yaml.MappingNode):
        for key, value in node.value:
            if key.value == str(step):
                return key.start_mark.line + 1, value
    if isinstance(node, yaml.SequenceNode) and isinstance(step, int) and step < len(node.value):
        return node.value[step].start_mark.line + 1, node.value[step]
    return None


def name_of(path: Sequence[str | int]) -> str:
    """The attribute as people write it: `tables[0].query`."""
    return "".join(f"[{s}]" if isinstance(s, int) else f".{s}" for s in path).lstrip(".")


def mistake(error: ValidationError, model: type[BaseModel], places: Places) -> UserError:
    """The first thing that the schema says against a declaration, in words."""
    first = error.errors()[0]
    path = tuple(step for step in first["loc"] if _stands(step, first["loc"]))
    where = places.of(*path)
    if first["type"] == "extra_forbidden":
        known = _attributes(model, path[:-1])
        return UserError(f"{where}: there is no attribute `{name_of(path)}`.", close_to(str(path[-1]), known))
    words = first["msg"].removeprefix("Value error, ")
    return UserError(f"{where}: `{name_of(path)}`: {words}." if path else f"{where}: {words}.")


def lenient(model: type[BaseModel]) -> type[BaseModel]:
    """The same model, that is empty in place of raising: one mistake must not take the whole project down."""

    class Lenient(model):  # type: ignore[misc, valid-type]
        @model_validator(mode="wrap")
        @classmethod
        def _empty(cls, value: Any, handler: Callable[[Any], Any]) -> Any:
            try:
                return handler(value)
            except ValidationError:
                return cls.model_construct()

    Lenient.__name__, Lenient.__qualname__, Lenient.__doc__ = (
        model.__name__,
        model.__qualname__,
        model.__doc__,
    )
    return Lenient


def _stands(step: str | int, path: tuple[str | int, ...]) -> bool:
    """Whether a step of pydantic's stands in the file: the names of its choices of types don't."""
    return isinstance(step, int) or step not in ("str", "Check", "Schedule", "list[str]") or step == path[0]


def _attributes(model: type[BaseModel], path: tuple[str | int, ...]) -> list[str]:
    """The attributes that there are at a place."""
    for step in path:
        field = model.model_fields.get(str(step))
        inner = [kind for kind in _kinds(field.annotation) if issubclass(kind, BaseModel)] if field else []
        model = inner[0] if inner else model
    return list(model.model_fields)


def _kinds(annotation: Any) -> Iterator[type]:
    """The classes in an annotation: of `list[Table] | None`, Table and None's."""
    arguments = getattr(annotation, "__args__", ())
    if isinstance(annotation, type) and not arguments:
        yield annotation
    for argument in arguments:
        yield from _kinds(argument)
