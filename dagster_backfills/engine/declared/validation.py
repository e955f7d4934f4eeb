"""Validates a declaration without a database. Errors name the file and line.

Not here: whether its tables and columns exist (`components/inspection`).
"""

from collections.abc import Callable, Iterator, Mapping
from functools import partial
from pathlib import Path
from pkgutil import resolve_name
from typing import Any

from dagster_backfills.engine.declared.declaration import Declaration, TableDeclaration
from dagster_backfills.engine.declared.yaml_mistakes import Places, name_of
from dagster_backfills.errors import UserError, did_you_mean
from dagster_backfills.postgres.statements import Statement, load_statements
from dagster_backfills.postgres.table_names import quoted, split_table

_ROW_BINDS = frozenset({"partition_keys", "unit_keys", "window_start", "window_end", "run_id", "backfill_id"})
_BINDS_WITHOUT_CALENDAR = _ROW_BINDS - {"window_start", "window_end"}
_PARTITION_BINDS = frozenset({"partition_keys", "window_start", "window_end"})
_ASSET_BINDS = frozenset({"assets", "seconds"})
_NO_BINDS: frozenset[str] = frozenset()
AttributePath = tuple[str | int, ...]


def validate(declared: Declaration, folder: Path) -> Mapping[str, Statement]:
    """Checks a declaration and returns the statements of its folder's `.sql` files. Raises UserError for a mistake."""
    statements, places = _statements(folder), Places(folder / "defs.yaml")
    if declared.database is not None and not declared.database.isidentifier():
        raise UserError(
            f"{places.of('database')}: `database` is not the name of an environment variable.",
            hint="Name a variable, such as REPORTING_URL, that holds the URL.",
        )
    for value, path, allowed in named_statements(declared):
        if value not in statements:
            raise UserError(
                f"{places.of(*path)}: `{name_of(path)}` names the statement {value!r}, which does not exist.",
                hint=did_you_mean(value, statements) + f" Statements are read from {folder / 'queries.sql'}.",
            )
        unknown = sorted(statements[value].binds - allowed)
        if unknown:
            raise UserError(
                f"{statements[value].place}: statement {value!r} binds :{unknown[0]}, which has no value here.",
                hint=did_you_mean(unknown[0], allowed),
            )
    _check_tables(declared, places)
    for table in declared.tables:
        _check_binds(table, statements[table.statement], partitioned=declared.partitions is not None)
    for source, by in declared.stale_when.items():
        if by in statements and statements[by].binds:
            raise UserError(
                f"{statements[by].place}: statement {by!r} can't bind parameters: it runs over the changed rows of "
                f"{source}."
            )
    if declared.report is not None:
        named_function(declared.report, places.of("report"))
    return statements


def _check_tables(declared: Declaration, places: Places) -> None:
    if not declared.tables:
        raise UserError(
            f"{places.of('tables')}: there are no tables.", "Name the tables that the backfill fills."
        )
    seen = set()
    for number, table in enumerate(declared.tables):
        at, names = partial(places.of, "tables", number), split_table(table.table)
        if names in seen:
            raise UserError(f"{at('table')}: table {table.table} is listed twice.", "Remove one.")
        seen.add(names)
        if table.compute is not None:
            named_function(table.compute, at("compute"))
        if table.compute is not None and declared.partitions is not None and table.partition_column is None:
            raise UserError(
                f"{at('compute')}: `compute` needs `partition_column`.",
                hint="A table without a partition column must be written by a query that returns `partition`.",
            )
        if table.partition_column is not None and declared.partitions is None:
            raise UserError(
                f"{at('partition_column')}: `partition_column` without `partitions`.",
                hint="Declare `partitions`, or remove `partition_column`.",
            )
        if table.mode == "replace" and declared.partitions is not None and table.partition_column is None:
            raise UserError(
                f"{at('mode')}: `replace` needs `partition_column`.",
                hint="The column determines which rows to replace. Without it, use `upsert`.",
            )
    for name, check in declared.check_list.items():
        if check.table is not None and split_table(check.table) not in seen:
            raise UserError(
                f"{places.of('checks', name, 'table')}: check {name!r} is for {check.table}, which the backfill does "
                "not fill.",
                hint=did_you_mean(check.table, [table.table for table in declared.tables]),
            )


def _check_binds(table: TableDeclaration, statement: Statement, *, partitioned: bool) -> None:
    """Raises UserError for a statement that returns all rows, whatever partitions or units the batch is for."""
    if partitioned and statement.binds.isdisjoint(_PARTITION_BINDS):
        raise UserError(
            f"{statement.place}: statement {statement.name!r} does not filter by partition, so it returns all rows.",
            hint=f"Add a filter: where {quoted(table.partition_column or 'partition')} = any(:partition_keys)",
        )
    if table.unit is not None and "unit_keys" not in statement.binds:
        raise UserError(
            f"{statement.place}: statement {statement.name!r} does not filter by unit, so it returns all units.",
            hint=f"Add a filter: and (:unit_keys::text[] is null or {quoted(table.unit)} = any(:unit_keys)); "
            "or remove `unit`.",
        )


def named_function(path: str, where: str) -> Callable[..., Any]:
    """Imports the function `package.module:function`. Raises UserError, with the place `where`, if it can't."""
    try:
        function = resolve_name(path)
        if not callable(function):
            raise ValueError("it is not a function")
        return function
    except (ImportError, AttributeError, ValueError) as error:
        raise UserError(
            f"{where}: {path!r} can't be loaded: {error}.", "Write package.module:function."
        ) from error


def named_statements(declared: Declaration) -> Iterator[tuple[str, AttributePath, frozenset[str]]]:
    """Yields the name of every statement in the declaration, the attribute's path, and the parameters it may bind."""
    if declared.partitions is not None and declared.partitions.keys is not None:
        yield declared.partitions.keys, ("partitions", "keys"), _NO_BINDS
    for number, table in enumerate(declared.tables):
        calendar = declared.partitions is not None and declared.partitions.calendar is not None
        allowed = _ROW_BINDS if calendar else _BINDS_WITHOUT_CALENDAR
        yield table.statement, ("tables", number, "query" if table.compute is None else "reads"), allowed
        if table.units_statement is not None:
            yield table.units_statement, ("tables", number, "units"), allowed
    for attribute in ("due", "missing", "status"):
        value = getattr(declared, attribute)
        if value is not None:
            yield value, (attribute,), _ASSET_BINDS
    for name, check in declared.check_list.items():
        yield check.query, ("checks", name), _ASSET_BINDS


def _statements(folder: Path) -> dict[str, Statement]:
    files = [path for path in (folder / "queries.sql", folder / "checks.sql") if path.is_file()]
    if not files:
        raise UserError(
            f"{folder} has no queries.sql.",
            hint="Write the declaration's statements into it, each after a line `-- name: …`.",
        )
    return dict(load_statements(*files).by_name)
