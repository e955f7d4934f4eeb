"""The examples as a whole: each case takes a limited number of lines, all YAML and SQL."""

from pathlib import Path

import pytest

from dagster_backfills.components.assets import build_assets
from dagster_backfills.components.postgres_backfill import PostgresBackfill, definitions_of
from dagster_backfills.components.refresh import build_job
from dagster_backfills_tests.components.adopting import EXAMPLES, load, written

LINES = {
    "A": (45, ["training_completions"]),
    "B": (80, ["progress_stats"]),
    "C": (25, ["kintell_users"]),
    "D": (110, ["scoring_sources", "scoring_coaches", "scoring_visits", "member_scores"]),
    "E": (40, ["member_months"]),
}


@pytest.mark.parametrize("case", LINES)
def test_each_example_stays_within_its_number_of_lines(case: str) -> None:
    most, folders = LINES[case]
    files = [path for folder in folders for path in (EXAMPLES / folder).iterdir()]
    assert {path.suffix for path in files} == {".yaml", ".sql"}
    assert sum(len(path.read_text().splitlines()) for path in files) <= most


def test_every_example_belongs_to_a_case_and_loads() -> None:
    named = {folder for _, folders in LINES.values() for folder in folders}
    assert {path.name for path in EXAMPLES.iterdir() if path.is_dir()} == named
    for folder in named:
        assert definitions_of(load(EXAMPLES / folder)).resolve_all_job_defs()


def test_tables_with_the_same_name_in_two_schemas_are_two_assets(tmp_path: Path) -> None:
    defs = """type: dagster_backfills.PostgresBackfill
attributes:
  tables: [{table: one.members, query: rows}, {table: two.members, query: rows}]
"""
    backfill = load(written(tmp_path, "both", defs, "-- name: rows\nselect 1 as id;\n"))
    assert {key.to_user_string() for key in build_assets(backfill).keys} == {"one/members", "two/members"}
    assert {node.name for node in build_job(backfill).nodes} == {"write_one_members", "write_two_members"}


def test_every_attribute_has_a_description_in_the_schema_that_editors_and_dg_read() -> None:
    schema = PostgresBackfill.get_model_cls().model_json_schema()
    models = [
        schema,
        *(schema["$defs"][name] for name in ("TableDeclaration", "Partitions", "Check", "Schedule")),
    ]
    attributes = {name: schema for model in models for name, schema in model["properties"].items()}
    assert {"stale_by", "unit", "cron"} <= set(attributes)
    assert [name for name, schema in attributes.items() if not schema.get("description")] == []
