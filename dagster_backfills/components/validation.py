"""Mistakes in a declaration that can be seen without a database, each named with its file and line.

Not here: whether its tables and columns are there (`inspection`).
"""

from collections.abc import Callable, Iterator, Mapping
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

import dagster as dg
from pydantic import BaseModel, ValidationError, model_validator

from dagster_backfills.components.declaration import split_table
from dagster_backfills.components.places import Places, name_of
from dagster_backfills.errors import UserError, close_to
from dagster_backfills.postgres.statements import Statement, load_statements

if TYPE_CHECKING:
    from dagster_backfills.components.postgres_backfill import PostgresBackfill

_ROWS = frozenset({"partition_keys", "unit_keys", "window_start", "window_end", "run_id", "backfill_id"})
_OF_ASSETS = frozenset({"assets", "seconds"})
_NOTHING: frozenset[str] = frozenset()
Path_ = tuple[str | int, ...]


def mistake(error: ValidationError, model: type[dg.Model], places: Places) -> UserError:
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


def validate(declared: "PostgresBackfill", folder: Path) -> Mapping[str, Statement]:
    """The statements of the folder's `.sql` files. Raises UserError for the first mistake."""
    statements, places = _statements(folder), Places(folder / "defs.yaml")
    for value, path, allowed in named_statements(declared):
        if value not in statements:
            raise UserError(
                f"{places.of(*path)}: `{name_of(path)}` is the statement {value!r}, and there is none of that name.",
                hint=close_to(value, statements) + f" Statements stand in {folder / 'queries.sql'}.",
            )
        unknown = sorted(statements[value].binds - allowed)
        if unknown:
            raise UserError(
                f"{line_of(folder, value)}: statement {value!r} binds :{unknown[0]}, which nothing gives.",
                hint=close_to(unknown[0], allowed),
            )
    _check_tables(declared, places)
    for source, by in declared.stale_when.items():
        if by in statements and statements[by].binds:
            raise UserError(
                f"{line_of(folder, by)}: {by!r} is asked of changed rows of {source}, and binds nothing."
            )
    if declared.report is not None:
        named_function(declared.report, places.of("report"))
    return statements


def _check_tables(declared: "PostgresBackfill", places: Places) -> None:
    if not declared.tables:
        raise UserError(f"{places.of('tables')}: no table is named.", "Name what the backfill fills.")
    seen: dict[tuple[str, str], int] = {}
    for number, table in enumerate(declared.tables):
        at = split_table(table.table)
        if at in seen:
            raise UserError(
                f"{places.of('tables', number, 'table')}: table {table.table} stands twice.", "Keep one."
            )
        seen[at] = number
        if table.compute is not None:
            named_function(table.compute, places.of("tables", number, "compute"))
        if table.partition_column is not None and declared.partitions is None:
            raise UserError(
                f"{places.of('tables', number, 'partition_column')}: `partition_column` without `partitions`.",
                hint="Say how the table is cut, or leave the column out.",
            )
        if table.mode == "replace" and declared.partitions is not None and table.partition_column is None:
            raise UserError(
                f"{places.of('tables', number, 'mode')}: `replace` needs `partition_column`.",
                hint="What is to be replaced is told by that column; or use `upsert`.",
            )
    for name, check in declared.check_list:
        if check.table is not None and split_table(check.table) not in seen:
            raise UserError(
                f"{places.of('checks', name, 'table')}: check {name!r} is of {check.table}, which the backfill does "
                "not fill.",
                hint=close_to(check.table, [table.table for table in declared.tables]),
            )


def named_function(path: str, where: str) -> Callable[..., Any]:
    """The function that `package.module:function` names."""
    module, _, name = path.partition(":")
    try:
        return getattr(import_module(module), name)
    except (ImportError, AttributeError, ValueError) as error:
        raise UserError(
            f"{where}: {path!r} can't be loaded: {error}", "Write package.module:function."
        ) from error


def named_statements(declared: "PostgresBackfill") -> Iterator[tuple[str, Path_, frozenset[str]]]:
    """Every statement that the declaration names, where, and what it may bind."""
    if declared.partitions is not None and declared.partitions.keys is not None:
        yield declared.partitions.keys, ("partitions", "keys"), _NOTHING
    for number, table in enumerate(declared.tables):
        yield table.statement, ("tables", number, "reads" if table.compute else "query"), _ROWS
        if table.units_statement is not None:
            yield table.units_statement, ("tables", number, "units"), _ROWS
    for attribute in ("due", "missing"):
        value = getattr(declared, attribute)
        if value is not None:
            yield value, (attribute,), _OF_ASSETS
    for name, check in declared.check_list:
        yield check.query, ("checks", name), _OF_ASSETS


def line_of(folder: Path, statement: str) -> str:
    """The file and line of a statement, for messages."""
    return "{}, line {}".format(*place_of(folder, statement))


def place_of(folder: Path, statement: str) -> tuple[Path, int]:
    """The file and line of a statement; where there is none, where it should be."""
    for path in _files(folder):
        found = load_statements(path).by_name.get(statement)
        if found is not None:
            return path, found.line
    return folder / "queries.sql", 1


def _files(folder: Path) -> list[Path]:
    return [path for path in (folder / "queries.sql", folder / "checks.sql") if path.is_file()]


def _statements(folder: Path) -> dict[str, Statement]:
    if not _files(folder):
        raise UserError(
            f"{folder} has no queries.sql.",
            hint="Write the statements that the declaration names into it, each behind `-- name: …`.",
        )
    return dict(load_statements(*_files(folder)).by_name)


def _stands(step: str | int, path: tuple[str | int, ...]) -> bool:
    """Whether a step of pydantic's stands in the file: the names of its choices of types don't."""
    return isinstance(step, int) or step not in ("str", "Check", "Schedule", "list[str]") or step == path[0]


def _attributes(model: type[dg.Model], path: tuple[str | int, ...]) -> list[str]:
    """The attributes that there are at a place."""
    for step in path:
        field = model.model_fields.get(str(step))
        inner = [kind for kind in _kinds(field.annotation) if issubclass(kind, dg.Model)] if field else []
        model = inner[0] if inner else model
    return list(model.model_fields)


def _kinds(annotation: Any) -> Iterator[type]:
    """The classes in an annotation: of `list[Table] | None`, Table and None's."""
    arguments = getattr(annotation, "__args__", ())
    if isinstance(annotation, type) and not arguments:
        yield annotation
    for argument in arguments:
        yield from _kinds(argument)
