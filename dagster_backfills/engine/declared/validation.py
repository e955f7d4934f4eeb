"""Mistakes in a declaration that can be seen without a database, each named with its file and line.

Not here: whether its tables and columns are there (`components/inspection`).
"""

from collections.abc import Callable, Iterator, Mapping
from functools import partial
from pathlib import Path
from pkgutil import resolve_name
from typing import Any

from dagster_backfills.engine.declared.declaration import Declaration, TableDeclaration
from dagster_backfills.errors import UserError, close_to
from dagster_backfills.postgres.statements import Statement, load_statements
from dagster_backfills.postgres.table_names import quoted, split_table
from dagster_backfills.yaml_mistakes import Places, name_of

_ROWS = frozenset({"partition_keys", "unit_keys", "window_start", "window_end", "run_id", "backfill_id"})
_OF_COMPUTED = _ROWS - {"window_start", "window_end"}  # as of what no calendar cuts
_OF_PARTITIONS = frozenset({"partition_keys", "window_start", "window_end"})
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
    for table in declared.tables:
        _check_binds(table, statements[table.statement], cut=declared.partitions is not None)
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
        if table.compute is not None and declared.partitions is not None and table.partition_column is None:
            raise UserError(
                f"{at('compute')}: `compute` needs `partition_column`.",
                hint="A table without the partition's column is written by a query, which gives `partition`.",
            )
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


def _check_binds(table: TableDeclaration, statement: Statement, *, cut: bool) -> None:
    """A batch is some partitions, or some units of one: a statement that does not ask which gives it all rows."""
    if cut and statement.binds.isdisjoint(_OF_PARTITIONS):
        raise UserError(
            f"{statement.place}: statement {statement.name!r} gives the rows of all partitions, whichever are written.",
            hint=f"Let it bind them: where {quoted(table.partition_column or 'partition')} = any(:partition_keys)",
        )
    if table.unit is not None and "unit_keys" not in statement.binds:
        raise UserError(
            f"{statement.place}: statement {statement.name!r} gives the rows of all units, whichever are written.",
            hint=f"Let it bind them: and (:unit_keys::text[] is null or {quoted(table.unit)} = any(:unit_keys)); "
            "or leave `unit` out.",
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
            f"{where}: {path!r} can't be loaded: {error}.", "Write package.module:function."
        ) from error


def named_statements(declared: Declaration) -> Iterator[tuple[str, Path_, frozenset[str]]]:
    """Every statement that the declaration names, where, and what it may bind."""
    if declared.partitions is not None and declared.partitions.keys is not None:
        yield declared.partitions.keys, ("partitions", "keys"), _NOTHING
    for number, table in enumerate(declared.tables):
        given = _ROWS if declared.partitions and declared.partitions.calendar else _OF_COMPUTED
        if table.compute is None:
            yield table.statement, ("tables", number, "query"), given
        else:
            yield table.statement, ("tables", number, "reads"), _OF_COMPUTED
        if table.units_statement is not None:
            yield table.units_statement, ("tables", number, "units"), given
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
