"""What Dagster's catalog says of tables before anything has run: what they are, their columns, where these come from.

The words are the database's own. They stand in a `catalog.json` beside the definitions, so that a code location loads
without a database; `backfills catalog` writes it (`cataloguing`).
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
_COMPUTED = "A view: computed whenever it is read, so that nothing has to keep it up to date."
FROM = "from"  # of a column in the file: the columns that it is made of
Lineage = Mapping[str, Iterable[str]]
Columns = Mapping[str, Mapping[str, Any]]


@dataclass(frozen=True)
class Catalog:
    """Tables as a `catalog.json` has them, by schema.table. A table that it lacks has its name alone."""

    tables: Mapping[str, Mapping[str, Any]]

    def metadata(
        self,
        table: str,
        lineage: Lineage | None = None,
        columns: Sequence[str] | None = None,
        *,
        database: str | None = None,
    ) -> dict[str, Any]:
        """The table's entries.

        lineage: by column those that it is made of, as schema.table.column, where the file does not say it.
        columns: those that the asset is of, where it is not all.
        database: the environment variable with its URL, where that is not DATABASE_URL.
        """
        found: dict[str, Any] = {"dagster/table_name": table}
        if address := _address(table, database):
            found["dagster/uri"] = dg.MetadataValue.url(address)
        known = self.tables.get(table, {}).get("columns", {})
        known = {name: said for name, said in known.items() if columns is None or name in columns}
        if known:
            found["dagster/column_schema"] = _schema(known)
        made_of = lineage or {name: said[FROM] for name, said in known.items() if FROM in said}
        if made_of:
            found["dagster/column_lineage"] = dg.TableColumnLineage(
                {name: [_source(each) for each in sources] for name, sources in made_of.items()}
            )
        return found

    def description(self, table: str) -> str | None:
        """The comment on the table."""
        return self.tables.get(table, {}).get("description")

    def spec(
        self, table: str, lineage: Lineage | None = None, *, database: str | None = None, **more: Any
    ) -> dg.AssetSpec:
        """A table or view that something else than Dagster fills. A view depends on what it reads."""
        said, schema = self.tables.get(table, {}), table.partition(".")[0]
        is_view = said.get("kind") == "view"
        given: dict[str, Any] = {
            "deps": [name.split(".", 1) for name in said.get("reads", ())],
            "description": " ".join(filter(None, [said.get("description"), _COMPUTED if is_view else ""]))
            or None,
            "group_name": schema,
            "kinds": {"postgres", said.get("kind", "table")},
            "is_virtual": is_view,
            **more,
        }
        metadata = self.metadata(table, lineage, database=database)
        return dg.AssetSpec(table.split(".", 1), metadata=metadata, **given)


@cache
def catalog_of(folder: Path) -> Catalog:
    """The catalog of a folder of definitions or of the nearest above it; an empty one where there is none."""
    for place in (folder, *list(folder.parents)[:3]):
        if (place / FILE).is_file():
            return Catalog(json.loads((place / FILE).read_text(encoding="utf-8")))
    return Catalog({})


def table_metadata(table: Table) -> dict[str, Any]:
    """The entries of a table as the database has it now, not as the file says."""
    return {"dagster/table_name": table.qualified, "dagster/column_schema": _schema(columns_of(table))}


def columns_of(table: Table) -> dict[str, dict[str, Any]]:
    """What the file says of each column."""
    return {
        column.name: without_nothing(
            {
                "type": column.type,
                "not_null": column.not_null,
                "unique": (column.name,) in table.keys,
                "description": column.description,
            }
        )
        for column in table.columns
    }


def without_nothing(said: Mapping[str, Any]) -> dict[str, Any]:
    """Of entries, those with something in them."""
    return {name: value for name, value in said.items() if value}


def code_version(*parts: str | Path) -> str:
    """Short, and another one whenever a text or a file among these is."""
    texts = [part.read_text(encoding="utf-8") if isinstance(part, Path) else part for part in parts]
    return hashlib.sha256("\n".join(texts).encode()).hexdigest()[:12]


def code_here(label: str) -> dict[str, Any]:
    """The same for code that stands where this is called."""
    caller = sys._getframe(1)
    return code_references([(Path(caller.f_code.co_filename), caller.f_lineno, label)])


def code_references(places: Sequence[tuple[Path, int, str]]) -> dict[str, Any]:
    """Where its code stands: files with lines and what stands there."""
    references: list[Any] = [
        dg.LocalFileCodeReference(file_path=f"{file}", line_number=line, label=label)
        for file, line, label in places
    ]
    return {"dagster/code_references": dg.CodeReferencesMetadataValue(code_references=references)}


def _source(text: str) -> dg.TableColumnDep:
    """A column that another is made of: schema.table.column, or asset/key.column."""
    table, _, column = text.rpartition(".")
    return dg.TableColumnDep(table.split("/") if "/" in table else table.split(".", 1), column)


def _schema(columns: Columns) -> dg.TableSchema:
    return dg.TableSchema(
        [
            dg.TableColumn(
                name,
                said["type"],
                description=said.get("description"),
                constraints=dg.TableColumnConstraints(
                    nullable=not said.get("not_null", False), unique=said.get("unique", False)
                ),
            )
            for name, said in columns.items()
        ]
    )


def _address(table: str, database: str | None) -> str | None:
    """The table's URI, without a user or a password; none where no server is named by host."""
    url = urlsplit(os.environ.get(database or "DATABASE_URL", "").strip())
    if not url.hostname or "," in url.netloc:
        return None
    return f"postgresql://{url.hostname}:{url.port or 5432}{url.path}?table={table}"
