"""Executes the how-tos on your own backfill and your own tables, in a new project with the built wheel."""

from collections.abc import Callable
from pathlib import Path

import psycopg
import pytest

from dagster_backfills_tests.components.adopting import EXAMPLES
from dagster_backfills_tests.components.applications import COMPLIANCE
from dagster_backfills_tests.e2e.own_project import OwnProject, make_project
from dagster_backfills_tests.e2e.pages import Reader

# The project's environment already contains the built wheel and the project. The first `check` reports what must still
# be filled in.
READER = Reader(
    instead={"pip install dagster-backfills": lambda: "", "pip install --editable .": lambda: ""},
    ends={"backfills check": None, "backfills check member_months": 2},
)


@pytest.fixture
def project(tmp_path: Path, adopters_environment: Path, make_database: Callable[..., str]) -> OwnProject:
    return make_project(tmp_path, adopters_environment, make_database(migrated=False))


@pytest.mark.e2e
def test_the_page_on_your_own_backfill_works(project: OwnProject, project_root: Path) -> None:
    done = list(READER.follow(project_root / "docs" / "how-to" / "your-own-backfill.md", project))
    assert len(done) == 16


@pytest.mark.e2e
def test_the_page_on_your_own_tables_works(project: OwnProject, project_root: Path) -> None:
    project.run("backfills", "migrate")
    with psycopg.connect(project.database_url, autocommit=True) as conn:
        conn.execute(COMPLIANCE)
    done = list(READER.follow(project_root / "docs" / "how-to" / "your-own-tables.md", project))
    assert len(done) == 7
    project.run("dg", "check", "defs")
    for name in ("defs.yaml", "queries.sql"):
        shown = (project.defs / "training_completions" / name).read_text()
        assert (EXAMPLES / "training_completions" / name).read_text().endswith(shown)
