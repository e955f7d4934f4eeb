"""Mistakes in a declaration that can be seen without a database, each named with its file and line.

Not here: whether its tables and columns are there (`components/inspection`).
"""

from collections.abc import Callable, Iterator, Mapping
from functools import partial
from pathlib import Path
from pkgutil import resolve_name
from typing import Any

from dagster_backfills.engine.declared.declaration import Declaration
from dagster_backfills.errors import UserError, close_to
from dagster_backfills.postgres.statements import Statement, load_statements
from dagster_backfills.postgres.table_names import split_table
from dagster_backfills.yaml_mistakes import Places, name_of

_ROWS = frozenset({"partition_keys", "unit_keys", "window_start", "window_end", "run_id", "backfill_id"})
_OF_ASSETS = frozenset({"assets", "seconds"})
_NOTHING: frozenset[str] = frozenset()
Path_ = tuple[str | int, ...]


def validate(declared: Declaration, folder: Path) -> Mapping[str, Statement]:
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
                f"{statements[value].place}: statement {value!r} binds :{unknown[0]}, which nothing gives.",
                hint=close_to(unknown[0], allowed),
            )
    _check_tables(declared, places)
    for source, by in declared.stale_when.items():
        if by in statements and statements[by].binds:
            raise UserError(
                f"{statements[by].place}: {by!r} is run over the changed rows of {source} and can bind nothing."
            )
    if declared.report is not None:
        named_function(declared.report, places.of("report"))
    return statements


def _check_tables(declared: Declaration, places: Places) -> None:
    if not declared.tables:
        raise UserError(f"{places.of('tables')}: no table is named.", "Name what the backfill fills.")
    seen = set()
    for number, table in enumerate(declared.tables):
        at, names = partial(places.of, "tables", number), split_table(table.table)
        if names in seen:
            raise UserError(f"{at('table')}: table {table.table} is listed twice.", "Keep one.")
        seen.add(names)
        if table.compute is not None:
            named_function(table.compute, at("compute"))
        if table.partition_column is not None and declared.partitions is None:
            raise UserError(
                f"{at('partition_column')}: `partition_column` without `partitions`.",
                hint="Say how the tables are partitioned, or leave the column out.",
            )
        if table.mode == "replace" and declared.partitions is not None and table.partition_column is None:
            raise UserError(
                f"{at('mode')}: `replace` needs `partition_column`.",
                hint="That column says which rows to replace. Without it, use `upsert`.",
            )
    for name, check in declared.check_list.items():
        if check.table is not None and split_table(check.table) not in seen:
            raise UserError(
                f"{places.of('checks', name, 'table')}: check {name!r} is of {check.table}, which the backfill does "
                "not fill.",
                hint=close_to(check.table, [table.table for table in declared.tables]),
            )


def named_function(path: str, where: str) -> Callable[..., Any]:
    """The function that `package.module:function` names."""
    try:
        found = resolve_name(path)
        if not callable(found):
            raise ValueError("it is no function")
        return found
    except (ImportError, AttributeError, ValueError) as error:
        raise UserError(
            f"{where}: {path!r} can't be loaded: {error}", "Write package.module:function."
        ) from error


def named_statements(declared: Declaration) -> Iterator[tuple[str, Path_, frozenset[str]]]:
    """Every statement that the declaration names, where, and what it may bind."""
    if declared.partitions is not None and declared.partitions.keys is not None:
        yield declared.partitions.keys, ("partitions", "keys"), _NOTHING
    for number, table in enumerate(declared.tables):
        yield table.statement, ("tables", number, "reads" if table.compute else "query"), _ROWS
        if table.units_statement is not None:
            yield table.units_statement, ("tables", number, "units"), _ROWS
    for attribute in ("due", "missing", "status"):
        value = getattr(declared, attribute)
        if value is not None:
            yield value, (attribute,), _OF_ASSETS
    for name, check in declared.check_list.items():
        yield check.query, ("checks", name), _OF_ASSETS


def _statements(folder: Path) -> dict[str, Statement]:
    files = [path for path in (folder / "queries.sql", folder / "checks.sql") if path.is_file()]
    if not files:
        raise UserError(
            f"{folder} has no queries.sql.",
            hint="Write the statements that the declaration names into it, each behind `-- name: …`.",
        )
    return dict(load_statements(*files).by_name)
