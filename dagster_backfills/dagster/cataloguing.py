"""Writing a project's `catalog.json`: what its database says of the tables and views in its lineage.

Not here: what Dagster is told of it (`catalog`). The column lineage is read off the queries and the views by sqlglot,
where that is installed.
"""

import json
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import dagster as dg
import psycopg

from dagster_backfills.dagster.catalog import FROM, columns_of, without_nothing
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
    """Every table and view that the definitions name, as the database has it now.

    queries: by table the statement that gives its rows, where SQL does.
    """
    wanted = set(_named(defs))
    found: Described = {}
    texts = {table: _BIND.sub("null", query).replace("%%", "%") for table, query in queries.items()}
    while new := sorted(wanted - found.keys()):
        for name in new:
            schema, _, table = name.partition(".")
            row = _STATEMENTS.relation(conn, schema=schema, name=table)
            if row is None:
                wanted.discard(name)
                continue
            kind, description, definition, reads = row
            if definition is not None:
                texts[name] = definition
            columns = columns_of(read_table(conn, schema, table))
            found[name] = without_nothing(
                {"kind": kind, "description": description, "reads": reads, "columns": columns}
            )
            wanted.update(reads)
    _add_lineage(found, texts)
    return dict(sorted(found.items()))


def as_text(described: Described) -> str:
    """The file's text: a column a line, so that a change is one in the diff."""
    tables = []
    for name, said in described.items():
        head = [f"    {json.dumps(key)}: {_json(value)}," for key, value in said.items() if key != "columns"]
        columns = [f"      {json.dumps(column)}: {_json(value)}" for column, value in said["columns"].items()]
        lines = [*head, '    "columns": {', ",\n".join(columns), "    }"]
        tables.append(f"  {json.dumps(name)}: {{\n" + "\n".join(lines) + "\n  }")
    return "{\n" + ",\n".join(tables) + "\n}\n"


def _json(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False)


def _named(defs: dg.Definitions) -> Iterator[str]:
    """The tables that assets are, and those that they read, as schema.table."""
    for spec in specs_of(defs):
        yield str(spec.metadata.get("dagster/table_name", ".".join(spec.key.path)))
        yield from (".".join(dep.asset_key.path) for dep in spec.deps)


def _add_lineage(found: Described, queries: Mapping[str, str]) -> None:
    """Say of each column of these tables and views which columns it is made of, as far as that can be told."""
    if not SQLGLOT:
        return
    tree: dict[str, Any] = {}
    for name, said in found.items():
        schema, _, table = name.partition(".")
        tree.setdefault(schema, {})[table] = {
            column: each["type"] for column, each in said["columns"].items()
        }
    known = MappingSchema(tree, dialect="postgres")
    for name in sorted(queries.keys() & found.keys()):
        query = parse_one(queries[name], dialect="postgres")
        # What stands in a LATERAL is found under its alias alone.
        aliases = {table.alias_or_name: table for table in query.find_all(exp.Table)}
        for column, said in found[name]["columns"].items():
            try:
                nodes = list(lineage(column, query, schema=known, dialect="postgres").walk())
            except (SqlglotError, ValueError):
                continue  # not of the query: a column that the database fills, or SQL that sqlglot does not know
            sources = set()
            for node in nodes:
                alias, _, source = node.name.replace('"', "").rpartition(".")
                origin = node.expression if isinstance(node.expression, exp.Table) else aliases.get(alias)
                at = f"{origin.db}.{origin.name}" if origin is not None else ""
                if not node.downstream and source in found.get(at, {}).get("columns", ()):
                    sources.add(f"{at}.{source}")
            if sources:
                said[FROM] = sorted(sources)
