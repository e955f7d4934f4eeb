"""Error messages for mistakes in a `defs.yaml`, each with file and line. Not here: the schema (its pydantic models)."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import yaml
from pydantic import BaseModel, ConfigDict, ValidationError, create_model, model_validator

from dagster_backfills.errors import UserError, did_you_mean


@dataclass(frozen=True)
class Places:
    """Finds the line of each attribute of a `defs.yaml`. Paths are relative to the keys in `below`."""

    file: Path
    below: tuple[str, ...] = ("attributes",)

    @cached_property
    def _root(self) -> yaml.Node | None:
        if not self.file.is_file():
            return None
        return next(yaml.compose_all(self.file.read_text(encoding="utf-8")), None)

    def of(self, *path: str | int) -> str:
        """The file and line of an attribute, as in `of("tables", 0, "query")`, or of its nearest existing parent."""
        node, line = self._root, None
        for step in (*self.below, *path):
            child = _child(node, step)
            if child is None:
                break
            line, node = child
        return f"{self.file}" if line is None else f"{self.file}, line {line}"


def _child(node: yaml.Node | None, step: str | int) -> tuple[int, yaml.Node] | None:
    if isinstance(node, yaml.MappingNode):
        for key, value in node.value:
            if key.value == str(step):
                return key.start_mark.line + 1, value
    if isinstance(node, yaml.SequenceNode) and isinstance(step, int) and step < len(node.value):
        return node.value[step].start_mark.line + 1, node.value[step]
    return None


def name_of(path: Sequence[str | int]) -> str:
    """The attribute's path as text: `tables[0].query`."""
    return "".join(f"[{s}]" if isinstance(s, int) else f".{s}" for s in path).lstrip(".")


class Document(BaseModel):
    """One YAML document of a `defs.yaml`, with the keys that Dagster allows for any component."""

    model_config = ConfigDict(extra="forbid")

    type: str
    attributes: dict[str, Any] | None = None
    template_vars_module: str | None = None
    requirements: dict[str, Any] | None = None
    post_processing: dict[str, Any] | None = None


def documents(file: Path) -> list[Document]:
    """The documents of a `defs.yaml`. Raises UserError, with file and line, if Dagster could not load them."""
    try:
        contents = list(yaml.safe_load_all(file.read_text(encoding="utf-8")))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        mark = getattr(error, "problem_mark", None)
        where = f"{file}, line {mark.line + 1}" if mark else f"{file}"
        raise UserError(f"{where}: this is not valid YAML: {getattr(error, 'problem', error)}.") from error
    try:
        return [Document.model_validate(each) for each in contents or [None]]
    except ValidationError as error:
        raise mistake(error, Document, Places(file, below=())) from error


def mistake(error: ValidationError, model: type[BaseModel], places: Places) -> UserError:
    """A UserError for a validation error: for the first unknown attribute if there is one, else for the first error."""
    errors = error.errors()
    first = next((each for each in errors if each["type"] == "extra_forbidden"), errors[0])
    path = tuple(step for step in first["loc"] if _is_in_file(step, first["loc"]))
    where = places.of(*path)
    if first["type"] == "extra_forbidden":
        known = _attributes(model, path[:-1])
        return UserError(
            f"{where}: there is no attribute `{name_of(path)}`.", did_you_mean(str(path[-1]), known)
        )
    words = first["msg"].removeprefix("Value error, ").rstrip(".")
    if first["type"] in ("dict_type", "model_type"):
        words = f"expected lines of `name: value`, found {_kind(first['input'])}"
    return UserError(f"{where}: `{name_of(path)}`: {words}." if path else f"{where}: {words}.")


def _kind(value: Any) -> str:
    kinds = {list: "a list", dict: "a mapping", type(None): "nothing"}
    return kinds.get(type(value), f"{value!r}")


def lenient(model: type[BaseModel]) -> type[BaseModel]:
    """The same model, but invalid input gives an empty instance: one mistake must not stop the project."""

    def or_empty(cls: type[BaseModel], value: Any, handler: Callable[[Any], Any]) -> Any:
        try:
            return handler(value)
        except ValidationError:
            return cls.model_construct()

    wrapped: Any = {"or_empty": model_validator(mode="wrap")(or_empty)}
    return create_model(model.__name__, __base__=model, __doc__=model.__doc__, __validators__=wrapped)


def _is_in_file(step: str | int, path: tuple[str | int, ...]) -> bool:
    """Whether a step of pydantic's error location is in the file. The names of union members are not."""
    return isinstance(step, int) or step not in ("str", "Check", "Schedule", "list[str]") or step == path[0]


def _attributes(model: type[BaseModel], path: tuple[str | int, ...]) -> list[str]:
    """The attributes that the model allows at this path."""
    for step in path:
        field = model.model_fields.get(str(step))
        inner = [kind for kind in _kinds(field.annotation) if issubclass(kind, BaseModel)] if field else []
        model = inner[0] if inner else model
    return list(model.model_fields)


def _kinds(annotation: Any) -> Iterator[type]:
    """The classes in an annotation: Table and NoneType for `list[Table] | None`."""
    arguments = getattr(annotation, "__args__", ())
    if isinstance(annotation, type) and not arguments:
        yield annotation
    for argument in arguments:
        yield from _kinds(argument)
