"""The catalog file: the database's comments and column types, and column lineage derived from SQL."""

import json
from pathlib import Path

import dagster as dg
import psycopg
import pytest

import dagster_backfills
from dagster_backfills.components.assets import build_assets, build_views
from dagster_backfills.components.cataloguing import describe
from dagster_backfills.components.postgres_backfill import PostgresBackfill, definitions_of
from dagster_backfills.dagster.catalog import Catalog, catalog_of
from dagster_backfills.dagster.cataloguing import _table_names, as_text
from dagster_backfills.dagster.resource import PostgresResource
from dagster_backfills.dagster.sources import statistics, with_sources

DEFS = Path(dagster_backfills.__file__).parent / "defs"


def with_postgres(defs: dg.Definitions) -> dg.Definitions:
    return dg.Definitions.merge(defs, dg.Definitions(resources={"postgres": PostgresResource()}))


def test_the_catalog_matches_the_database(database_url: str) -> None:
    with psycopg.connect(database_url) as conn:
        now = as_text(describe(conn, DEFS))
    assert (DEFS / "catalog.json").read_text() == now, "write it anew: backfills catalog"


def test_column_lineage_is_derived_from_declared_statements_and_views() -> None:
    tables = catalog_of(DEFS).tables
    stats = tables["progress.cohort_stats"]["columns"]
    assert "progress.user_progress_stats.questions_interacted" in stats["average_completion"]["from"]
    assert tables["progress.cohort_dashboard"]["columns"]["school_name"]["from"] == ["progress.schools.name"]
    for table in tables.values():
        for column in table["columns"].values():
            for source in column.get("from", ()):
                table, _, name = source.rpartition(".")
                assert name in tables[table]["columns"], source


def test_a_users_project_gets_descriptions_lineage_and_source_assets(
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
    graph = with_sources(with_postgres(definitions_of(declared)), Catalog(described)).resolve_asset_graph()
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


def test_an_observation_has_row_counts_and_the_time_of_the_last_change(database_url: str) -> None:
    with psycopg.connect(database_url, autocommit=True) as conn:
        conn.execute("create table public.polled_at (id integer)")
        conn.execute("insert into polled_at select generate_series(1, 30)")
        conn.execute("analyze polled_at")
        conn.execute("select pg_stat_force_next_flush()")
        first = statistics(conn, "public.polled_at", {})
        assert first == {"rows_changed": 30, "dagster/row_count": 30}
        assert statistics(conn, "public.polled_at", first) == first
        assert "dagster/last_updated_timestamp" in statistics(conn, "public.polled_at", {"rows_changed": 12})
        assert statistics(conn, "public.not_there", {}) == {}


def test_a_tables_uri_is_in_the_database_that_its_declaration_names(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DATABASE_URL", "postgresql://me:secret@app.test/app")
    monkeypatch.setenv("REPORTS_URL", "postgresql://reports.test:6543/reports")
    (tmp_path / "queries.sql").write_text("-- name: totals\nselect 1 as id;\n")
    catalog = {"tables": [{"table": "shop.totals"}], "views": ["shop.best"]}
    for given, start in (
        (catalog, "postgresql://app.test:5432/app"),
        ({**catalog, "database": "REPORTS_URL"}, "postgresql://reports.test:6543/reports"),
    ):
        backfill = PostgresBackfill.model_validate(given).at(tmp_path)
        (table,), (view,) = build_assets(backfill).specs, build_views(backfill)
        assert table.metadata["dagster/uri"].value == f"{start}?table=shop.totals"
        assert view.metadata["dagster/uri"].value == f"{start}?table=shop.best"


def test_tables_of_another_database_get_nothing_from_the_catalog_of_database_url(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DATABASE_URL", "postgresql://app.test/app")
    monkeypatch.setenv("REPORTS_URL", "postgresql://reports.test/reports")
    described = {
        table: {"kind": "table", "description": "Of the application.", "columns": {"id": {"type": "integer"}}}
        for table in ("shop.totals", "shop.sales")
    }
    (tmp_path / "catalog.json").write_text(as_text(described))
    (tmp_path / "queries.sql").write_text("-- name: totals\nselect id from shop.sales;\n")
    given = {"tables": [{"table": "shop.totals"}], "sources": ["shop.sales"]}
    for database, is_known in ((None, True), ("REPORTS_URL", False)):
        backfill = PostgresBackfill.model_validate({**given, "database": database}).at(tmp_path)
        defs = with_sources(with_postgres(definitions_of(backfill)), catalog_of(tmp_path))
        graph = defs.resolve_asset_graph()
        totals, sales = (graph.get(dg.AssetKey(["shop", name])) for name in ("totals", "sales"))
        assert ("dagster/column_schema" in totals.metadata, totals.description is not None) == (is_known,) * 2
        assert (sales.is_observable, "dagster/uri" in sales.metadata) == (is_known,) * 2
        assert ("shop.sales" in set(_table_names(defs))) == is_known
