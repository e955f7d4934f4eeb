"""What the catalog says of tables: the database's own words, kept in a file, and the lineage that SQL says."""

import json
from pathlib import Path

import dagster as dg
import psycopg
import pytest

import dagster_backfills
from dagster_backfills.components.assets import build_assets, build_views
from dagster_backfills.components.loading import describe
from dagster_backfills.components.postgres_backfill import PostgresBackfill, definitions_of
from dagster_backfills.dagster.catalog import Catalog, catalog_of
from dagster_backfills.dagster.cataloguing import as_text
from dagster_backfills.dagster.sources import look, with_sources

DEFS = Path(dagster_backfills.__file__).parent / "defs"


def test_the_catalog_is_what_the_database_says(database_url: str) -> None:
    with psycopg.connect(database_url) as conn:
        now = as_text(describe(conn, DEFS))
    assert (DEFS / "catalog.json").read_text() == now, "write it anew: backfills catalog"


def test_a_columns_lineage_is_read_off_the_declared_statement_and_off_views() -> None:
    tables = catalog_of(DEFS).tables
    stats = tables["progress.cohort_stats"]["columns"]
    assert "progress.user_progress_stats.questions_interacted" in stats["average_completion"]["from"]
    assert tables["progress.cohort_dashboard"]["columns"]["school_name"]["from"] == ["progress.schools.name"]
    for said in tables.values():
        for column in said["columns"].values():
            for source in column.get("from", ()):
                table, _, name = source.rpartition(".")
                assert name in tables[table]["columns"], source


def test_a_project_of_ones_own_has_its_tables_described_by_the_same_means(
    database_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "shop" / "defs" / "totals"
    monkeypatch.syspath_prepend(tmp_path)
    folder.mkdir(parents=True)
    (tmp_path / "pyproject.toml").write_text(
        '[tool.dg]\ndirectory_type = "project"\n[tool.dg.project]\nroot_module = "shop"\n'
    )
    (folder / "defs.yaml").write_text(
        "type: dagster_backfills.PostgresBackfill\nattributes:\n"
        "  sources: [shop.sales]\n  views: [shop.best]\n  owners: [team:shop]\n  fresh_hours: 3\n"
        '  tables: [{table: shop."Totals"}]\n'
    )
    (folder / "queries.sql").write_text(
        "-- name: Totals\nselect day, sum(amount) as amount from shop.sales group by day;\n"
    )
    with psycopg.connect(database_url, autocommit=True) as conn:
        conn.execute("create schema shop")
        conn.execute("create table shop.sales (day date, amount integer)")
        conn.execute('create table shop."Totals" (day date primary key, amount bigint not null)')
        conn.execute("comment on table shop.sales is 'What was sold.'")
        conn.execute("""comment on column shop."Totals".amount is 'In cents.'""")
        conn.execute('create view shop.best as select max(amount) as amount from shop."Totals"')
        described = describe(conn, folder.parent)
    text = as_text(described)
    assert json.loads(text) == described
    (folder.parent / "catalog.json").write_text(text)
    catalog_of.cache_clear()
    declared = PostgresBackfill.model_validate(
        {"sources": ["shop.sales"], "views": ["shop.best"], "owners": ["team:shop"], "fresh_hours": 3,
         "tables": [{"table": 'shop."Totals"'}]}
    ).at(folder)  # fmt: skip
    graph = with_sources(
        definitions_of(declared), Catalog(described), database=declared.database
    ).resolve_asset_graph()
    totals, sales, best = (graph.get(dg.AssetKey(["shop", name])) for name in ("Totals", "sales", "best"))
    columns = {c.name: c for c in totals.metadata["dagster/column_schema"].columns}
    assert (columns["amount"].description, columns["amount"].type) == ("In cents.", "bigint")
    lineage = totals.metadata["dagster/column_lineage"].deps_by_column
    assert lineage["amount"] == [dg.TableColumnDep(sales.key, "amount")]
    assert [ref.label for ref in totals.metadata["dagster/code_references"].code_references] == ["Totals"]
    assert totals.owners == ["team:shop"]
    assert totals.freshness_policy is not None
    assert totals.code_version
    assert sales.description == "What was sold."
    assert sales.is_observable
    assert best.parent_keys == {totals.key}


def test_a_look_at_a_table_tells_rows_and_when_they_changed_and_reads_none_of_them(database_url: str) -> None:
    with psycopg.connect(database_url, autocommit=True) as conn:
        conn.execute("create table public.looked_at (id integer)")
        conn.execute("insert into looked_at select generate_series(1, 30)")
        conn.execute("analyze looked_at")
        conn.execute("select pg_stat_force_next_flush()")
        first = look(conn, "public.looked_at", {})
        assert first == {"rows_changed": 30, "dagster/row_count": 30}
        assert look(conn, "public.looked_at", first) == first
        assert "dagster/last_updated_timestamp" in look(conn, "public.looked_at", {"rows_changed": 12})
        assert look(conn, "public.not_there", {}) == {}


def test_the_address_of_a_table_is_in_the_database_that_its_declaration_names(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DATABASE_URL", "postgresql://me:secret@app.test/app")
    monkeypatch.setenv("REPORTS_URL", "postgresql://reports.test:6543/reports")
    (tmp_path / "queries.sql").write_text("-- name: totals\nselect 1 as id;\n")
    said = {"tables": [{"table": "shop.totals"}], "views": ["shop.best"]}
    for given, start in (
        (said, "postgresql://app.test:5432/app"),
        ({**said, "database": "REPORTS_URL"}, "postgresql://reports.test:6543/reports"),
    ):
        backfill = PostgresBackfill.model_validate(given).at(tmp_path)
        (table,), (view,) = build_assets(backfill).specs, build_views(backfill)
        assert table.metadata["dagster/uri"].value == f"{start}?table=shop.totals"
        assert view.metadata["dagster/uri"].value == f"{start}?table=shop.best"
