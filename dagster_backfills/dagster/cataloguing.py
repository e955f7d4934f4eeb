"""Writing a project's `catalog.json`: descriptions of the tables and views in its lineage, read from its database.

Column lineage is derived from the queries and view definitions by sqlglot, if it is installed. Not here: the asset
metadata made from the file (`catalog`).
"""

import json
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import dagster as dg
import psycopg

from dagster_backfills.dagster.catalog import FROM, OTHER_DATABASE, columns_of, without_empty
from dagster_backfills.dagster.sources import specs_of
from dagster_backfills.engine.table.catalog import read_table
from dagster_backfills.postgres.statements import load_statements

try:
    from sqlglot import MappingSchema, exp, parse_one
    from sqlglot.errors import SqlglotError
    from sqlglot.lineage import lineage

    SQLGLOT = True
except ImportError:
    SQLGLOT = False

_STATEMENTS = load_statements(Path(__file__).with_name("cataloguing.sql"))
_BIND = re.compile(r"%\(\w+\)s")
Described = dict[str, dict[str, Any]]


def describe(conn: psycopg.Connection[Any], defs: dg.Definitions, queries: Mapping[str, str]) -> Described:
    """Describe every table and view of DATABASE_URL that the definitions refer to, as the database has it now.

    queries: the statement that computes each table's rows, for tables that SQL computes.
    """
    pending = set(_table_names(defs))
    described: Described = {}
    texts = {table: _BIND.sub("null", query).replace("%%", "%") for table, query in queries.items()}
    while new := sorted(pending - described.keys()):
        for name in new:
            schema, _, table = name.partition(".")
            row = _STATEMENTS.relation(conn, schema=schema, name=table)
            if row is None:
                pending.discard(name)
                continue
            kind, description, definition, reads = row
            if definition is not None:
                texts[name] = definition
            columns = columns_of(read_table(conn, schema, table))
            described[name] = without_empty(
                {"kind": kind, "description": description, "reads": reads, "columns": columns}
            )
            pending.update(reads)
    _add_lineage(described, texts)
    return dict(sorted(described.items()))


def as_text(described: Described) -> str:
    """The file's text, with one column per line for readable diffs."""
    tables = []
    for table, entry in described.items():
        head = [f"    {json.dumps(key)}: {_json(value)}," for key, value in entry.items() if key != "columns"]
        columns = [f"      {json.dumps(name)}: {_json(value)}" for name, value in entry["columns"].items()]
        lines = [*head, '    "columns": {', ",\n".join(columns), "    }"]
        tables.append(f"  {json.dumps(table)}: {{\n" + "\n".join(lines) + "\n  }")
    return "{\n" + ",\n".join(tables) + "\n}\n"


def _json(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False)


def _table_names(defs: dg.Definitions) -> Iterator[str]:
    """The tables in DATABASE_URL that the assets write and read, as schema.table."""
    for spec in specs_of(defs):
        if OTHER_DATABASE not in spec.metadata:
            yield str(spec.metadata.get("dagster/table_name", ".".join(spec.key.path)))
            yield from (".".join(dep.asset_key.path) for dep in spec.deps)


def _add_lineage(described: Described, queries: Mapping[str, str]) -> None:
    """Add the source columns of each column, as far as sqlglot can derive them."""
    if not SQLGLOT:
        return
    tree: dict[str, Any] = {}
    for name, entry in described.items():
        schema, _, table = name.partition(".")
        tree.setdefault(schema, {})[table] = {
            column: each["type"] for column, each in entry["columns"].items()
        }
    schema_tree = MappingSchema(tree, dialect="postgres")
    for name in sorted(queries.keys() & described.keys()):
        query = parse_one(queries[name], dialect="postgres")
        # sqlglot reports columns from inside a LATERAL only by the table's alias.
        aliases = {table.alias_or_name: table for table in query.find_all(exp.Table)}
        for column, entry in described[name]["columns"].items():
            try:
                nodes = list(lineage(column, query, schema=schema_tree, dialect="postgres").walk())
            except (SqlglotError, ValueError):
                continue  # a column that the database fills, or SQL that sqlglot can't parse
            sources = set()
            for node in nodes:
                alias, _, source = node.name.replace('"', "").rpartition(".")
                origin = node.expression if isinstance(node.expression, exp.Table) else aliases.get(alias)
                table = f"{origin.db}.{origin.name}" if origin is not None else ""
                if not node.downstream and source in described.get(table, {}).get("columns", ()):
                    sources.add(f"{table}.{source}")
            if sources:
                entry[FROM] = sorted(sources)
