"""Mistakes within a project: a bad declaration does not affect the others, and checks of the definitions fail."""

import sys
from pathlib import Path

import dagster as dg
import pytest

from dagster_backfills_tests.components.adopting import EXAMPLES, copied, project_in, said_of, written
from dagster_backfills_tests.components.test_mistakes import MISTAKES, Change
from dagster_backfills_tests.programs import run


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A project with one good declaration. Returns its folder of definitions."""
    monkeypatch.syspath_prepend(str(tmp_path))
    return project_in(tmp_path)


def loaded(project: Path) -> dict[str, str]:
    """The description of each asset, loaded by Dagster's own loader."""
    return said_of(dg.load_from_defs_folder(path_within_project=project))


def assert_only_the_bad_one_fails(project: Path, change: Change, message: str) -> None:
    """Asserts that with this mistake in another declaration, the good one loads and the other shows the mistake."""
    copied(project, "member_months", change)
    there = loaded(project)
    assert "kintell/users" in there
    assert message in there["member_months_declaration"]


@pytest.mark.parametrize(
    "name", ["an unknown attribute", "several kinds of partitions", "an unknown statement"]
)
def test_one_bad_declaration_does_not_affect_the_others(project: Path, name: str) -> None:
    assert_only_the_bad_one_fails(project, *MISTAKES[name][:2])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (("30 1 * * *", "30 1 * *"), "Dagster rejects it: Found invalid cron schedule '30 1 * *'"),
        (("unit: member_id", "owners: [nobody]"), "Dagster rejects it: Invalid owner 'nobody'"),
        (
            ("every_visitor_has_a_month: v", "every visitor: v"),
            'every visitor" is not a valid name in Dagster',
        ),
        (("every_visitor_has_a_month: v", "fresh: v"), "every backfill already has a check 'fresh'"),
    ],
    ids=["a cron expression", "an owner", "the name of a check", "the name of a check of every backfill"],
)
def test_a_declaration_that_dagster_rejects_does_not_affect_the_others(
    project: Path, change: Change, message: str
) -> None:
    assert_only_the_bad_one_fails(project, change, message)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            ("schedule", "name: another\n  schedule"),
            "table kintell.users is already used by another declaration",
        ),
        (("kintell.users", "kintell.userss"), "the name 'again' is already used by another declaration"),
    ],
    ids=["the same table", "the same name"],
)
def test_two_backfills_do_not_share_a_table_or_a_name(project: Path, change: Change, message: str) -> None:
    text = (EXAMPLES / "kintell_users" / "defs.yaml").read_text().replace(*change)
    queries = (EXAMPLES / "kintell_users" / "queries.sql").read_text()
    written(project, "again", text, queries)
    if "name" in message and "table" not in message:
        (project / "kintell_users" / "defs.yaml").write_text(
            (project / "kintell_users" / "defs.yaml")
            .read_text()
            .replace("attributes:", "attributes:\n  name: again")
        )
    there = loaded(project)
    assert len(there) == 2
    [said_of_it] = [text for name, text in there.items() if name.endswith("_declaration")]
    assert message in said_of_it


@pytest.mark.e2e
@pytest.mark.parametrize(
    "command", [("dg", "check", "defs"), ("dagster", "definitions", "validate")], ids=" ".join
)
def test_a_check_of_the_definitions_fails_for_a_bad_declaration(
    project: Path, command: tuple[str, ...], database_url: str
) -> None:
    change, message, _ = MISTAKES["an unknown statement"]
    copied(project, "member_months", change)
    script = str(Path(sys.executable).with_name(command[0]))
    module = ["-m", f"{project.parent.name}.definitions"] if command[0] == "dagster" else []
    bad = run([script, *command[1:], *module], cwd=project.parents[1])
    assert bad.returncode != 0
    assert message[:80] in " ".join((bad.stdout + bad.stderr).split())
