"""Asset metadata of tables that Dagster shows before anything has run: descriptions, columns and column lineage.

It comes from the database's comments and is stored in a `catalog.json` beside the definitions, so that a code location
loads without a database. `backfills catalog` writes the file (`cataloguing`).
"""

import hashlib
import json
import os
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import dagster as dg

from dagster_backfills.engine.table.catalog import Table

FILE = "catalog.json"
OTHER_DATABASE = "database_url_variable"  # metadata of an asset whose declaration has its own `database`
_COMPUTED = "A view: computed whenever it is read, so it is always up to date."
FROM = "from"  # key of a column in the file: its source columns
Lineage = Mapping[str, Iterable[str]]
Columns = Mapping[str, Mapping[str, Any]]


@dataclass(frozen=True)
class Catalog:
    """The tables of a `catalog.json`, by schema.table. Of an unknown table, only the name is known."""

    tables: Mapping[str, Mapping[str, Any]]

    def metadata(
        self,
        table: str,
        lineage: Lineage | None = None,
        columns: Sequence[str] | None = None,
        *,
        database: str | None = None,
    ) -> dict[str, Any]:
        """The table's asset metadata.

        lineage: the source columns of each column, as schema.table.column. Replaces the file's.
        columns: the asset's columns, if it does not have all of the table's.
        database: the environment variable with the database's URL, if it is not DATABASE_URL.
        """
        metadata: dict[str, Any] = {"dagster/table_name": table}
        if database:
            metadata[OTHER_DATABASE] = database
        if address := _address(table, database):
            metadata["dagster/uri"] = dg.MetadataValue.url(address)
        known = self.tables.get(table, {}).get("columns", {})
        known = {name: column for name, column in known.items() if columns is None or name in columns}
        if known:
            metadata["dagster/column_schema"] = _schema(known)
        lineage = lineage or {name: column[FROM] for name, column in known.items() if FROM in column}
        if lineage:
            metadata["dagster/column_lineage"] = dg.TableColumnLineage(
                {name: [_source(each) for each in sources] for name, sources in lineage.items()}
            )
        return metadata

    def description(self, table: str) -> str | None:
        """The comment on the table."""
        return self.tables.get(table, {}).get("description")

    def spec(
        self, table: str, lineage: Lineage | None = None, *, database: str | None = None, **more: Any
    ) -> dg.AssetSpec:
        """The asset of a table or view that Dagster does not fill. A view depends on the tables that it reads."""
        known, schema = self.tables.get(table, {}), table.partition(".")[0]
        is_view = known.get("kind") == "view"
        attributes: dict[str, Any] = {
            "deps": [name.split(".", 1) for name in known.get("reads", ())],
            "description": " ".join(filter(None, [known.get("description"), _COMPUTED if is_view else ""]))
            or None,
            "group_name": schema,
            "kinds": {"postgres", known.get("kind", "table")},
            "is_virtual": is_view,
            **more,
        }
        metadata = self.metadata(table, lineage, database=database)
        return dg.AssetSpec(table.split(".", 1), metadata=metadata, **attributes)


@cache
def catalog_of(folder: Path) -> Catalog:
    """The catalog in a folder of definitions or in the nearest parent that has one, else an empty one."""
    for place in (folder, *list(folder.parents)[:3]):
        if (place / FILE).is_file():
            return Catalog(json.loads((place / FILE).read_text(encoding="utf-8")))
    return Catalog({})


def table_metadata(table: Table) -> dict[str, Any]:
    """A table's metadata as read from the database now, not from the file."""
    return {"dagster/table_name": table.qualified, "dagster/column_schema": _schema(columns_of(table))}


def columns_of(table: Table) -> dict[str, dict[str, Any]]:
    """A table's columns, as the file stores them."""
    return {
        column.name: without_empty(
            {
                "type": column.type,
                "not_null": column.not_null,
                "unique": (column.name,) in table.keys,
                "description": column.description,
            }
        )
        for column in table.columns
    }


def without_empty(entries: Mapping[str, Any]) -> dict[str, Any]:
    """The entries whose value is not empty."""
    return {name: value for name, value in entries.items() if value}


def code_version(*parts: str | Path) -> str:
    """A short hash of texts and file contents."""
    texts = [part.read_text(encoding="utf-8") if isinstance(part, Path) else part for part in parts]
    return hashlib.sha256("\n".join(texts).encode()).hexdigest()[:12]


def code_here(label: str) -> dict[str, Any]:
    """The code reference to the line that calls this."""
    caller = sys._getframe(1)
    return code_references([(Path(caller.f_code.co_filename), caller.f_lineno, label)])


def code_references(places: Sequence[tuple[Path, int, str]]) -> dict[str, Any]:
    """Code references metadata: file, line and label of each place."""
    references: list[Any] = [
        dg.LocalFileCodeReference(file_path=f"{file}", line_number=line, label=label)
        for file, line, label in places
    ]
    return {"dagster/code_references": dg.CodeReferencesMetadataValue(code_references=references)}


def _source(text: str) -> dg.TableColumnDep:
    """A source column, written as schema.table.column or asset/key.column."""
    table, _, column = text.rpartition(".")
    return dg.TableColumnDep(table.split("/") if "/" in table else table.split(".", 1), column)


def _schema(columns: Columns) -> dg.TableSchema:
    return dg.TableSchema(
        [
            dg.TableColumn(
                name,
                column["type"],
                description=column.get("description"),
                constraints=dg.TableColumnConstraints(
                    nullable=not column.get("not_null", False), unique=column.get("unique", False)
                ),
            )
            for name, column in columns.items()
        ]
    )


def _address(table: str, database: str | None) -> str | None:
    """The table's URI, without user and password; None if the URL names no single host."""
    url = urlsplit(os.environ.get(database or "DATABASE_URL", "").strip())
    if not url.hostname or "," in url.netloc:
        return None
    return f"postgresql://{url.hostname}:{url.port or 5432}{url.path}?table={table}"
