"""Mistakes in a declaration that can be seen without a database, each named with its file and line.

Tables and columns are looked at when a run starts, before anything is written.
"""

from collections.abc import Callable, Iterator, Mapping
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dagster_backfills.components.declaration import close_to, split_table
from dagster_backfills.errors import UserError
from dagster_backfills.postgres.statements import Statement, load_statements

if TYPE_CHECKING:
    from dagster_backfills.components.postgres_backfill import PostgresBackfill

_ROWS = {"partition_keys", "unit_keys", "window_start", "window_end", "run_id", "backfill_id"}
_OF_ASSETS = {"assets", "seconds"}


def validate(declared: "PostgresBackfill", folder: Path) -> Mapping[str, Statement]:
    """The statements of the folder's `.sql` files. Raises UserError for the first mistake."""
    statements = _statements(folder)
    yaml = folder / "defs.yaml"
    for value, attribute, allowed in _named(declared):
        where = _line_of(yaml, value)
        if value not in statements:
            raise UserError(
                f"{where}: `{attribute}` names the statement {value!r}, and there is none of that name.",
                hint=close_to(value, statements) + f" Statements stand in {folder / 'queries.sql'}.",
            )
        unknown = sorted(statements[value].binds - allowed)
        if unknown:
            file = next(path for path in _files(folder) if value in load_statements(path).by_name)
            raise UserError(
                f"{file}, line {statements[value].line}: statement {value!r} binds :{unknown[0]}, which nothing gives.",
                hint=close_to(unknown[0], allowed),
            )
    _check_tables(declared, yaml)
    if declared.report is not None:
        named_function(declared.report, _line_of(yaml, declared.report))
    return statements


def _check_tables(declared: "PostgresBackfill", yaml: Path) -> None:
    seen = set()
    for table in declared.tables:
        if table.asset in seen:
            raise UserError(f"{_line_of(yaml, table.table)}: table {table.table} stands twice.", "Keep one.")
        seen.add(table.asset)
        if table.compute is not None:
            named_function(table.compute, _line_of(yaml, table.compute))
        if table.partition_column is not None and declared.partitions is None:
            raise UserError(
                f"{_line_of(yaml, table.partition_column)}: `partition_column` without `partitions`.",
                hint="Say how the table is cut, or leave the column out.",
            )
    for name, check in declared.check_list:
        if check.table is not None and "/".join(split_table(check.table)) not in seen:
            raise UserError(
                f"{_line_of(yaml, check.table)}: check {name!r} is of {check.table}, which the backfill does not fill.",
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


def _named(declared: "PostgresBackfill") -> Iterator[tuple[str, str, set[str]]]:
    """Every statement that the declaration names, the attribute that names it, and what it may bind."""
    if declared.partitions is not None and declared.partitions.keys is not None:
        yield declared.partitions.keys, "partitions.keys", set()
    for table in declared.tables:
        yield table.statement, "reads" if table.compute else "query", _ROWS
        if table.units_statement is not None:
            yield table.units_statement, "units", _ROWS
    for attribute in ("due", "missing"):
        value = getattr(declared, attribute)
        if value is not None:
            yield value, attribute, _OF_ASSETS
    for name, check in declared.check_list:
        yield check.query, f"checks.{name}", _OF_ASSETS


def _files(folder: Path) -> list[Path]:
    return [path for path in (folder / "queries.sql", folder / "checks.sql") if path.is_file()]


def _statements(folder: Path) -> dict[str, Statement]:
    if not _files(folder):
        raise UserError(
            f"{folder} has no queries.sql.",
            hint="Write the statements that the declaration names into it, each behind `-- name: …`.",
        )
    return dict(load_statements(*_files(folder)).by_name)


def _line_of(yaml: Path, text: str) -> str:
    """The file, and the first line that has the text."""
    if yaml.is_file():
        for number, line in enumerate(yaml.read_text(encoding="utf-8").splitlines(), 1):
            if text in line:
                return f"{yaml}, line {number}"
    return f"{yaml}"
