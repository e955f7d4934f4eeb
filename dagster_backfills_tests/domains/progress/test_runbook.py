"""What the runbook tells people to type exists and works."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

COMMAND = re.compile(r"^    backfills ([a-z]+)(.*)$|`backfills ([a-z]+)([^`]*)`", re.M)


@pytest.fixture(scope="module")
def runbook(project_root: Path) -> str:
    return (project_root / "docs" / "runbooks" / "progress-stats.md").read_text()


def test_its_queries_run(school, runbook):
    blocks = re.findall(r"```sql\n(.*?)```", runbook, re.S)
    assert len(blocks) >= 4
    for block in blocks:
        school.execute(block)


def test_the_query_for_triggers_that_are_off_finds_one(school, runbook):
    [query] = [block for block in re.findall(r"```sql\n(.*?)```", runbook, re.S) if "tgenabled" in block]
    assert school.execute(query).fetchall() == []
    school.execute("alter table progress.user_progress disable trigger sources_changed_insert")
    assert school.execute(query).fetchall() == [("user_progress", "sources_changed_insert")]


def test_it_names_every_operators_query(project_root, runbook):
    monitoring = project_root / "sql" / "monitoring"
    files = {path.name for mine in ("progress_*.sql", "backfill_*.sql") for path in monitoring.glob(mine)}
    assert set(re.findall(r"(?:progress|backfill)_\w+\.sql", runbook)) == files


def test_its_commands_have_the_options_that_it_gives_them(runbook):
    commands: dict[str, set[str]] = {}
    for match in COMMAND.finditer(runbook):
        name, rest = (match[1], match[2]) if match[1] else (match[3], match[4])
        commands.setdefault(name, set()).update(re.findall(r"--[a-z]+", rest))
    assert {"run", "status", "failures"} <= set(commands)
    for name, options in commands.items():
        shown = subprocess.run(
            [str(Path(sys.executable).with_name("backfills")), name, "--help"],
            capture_output=True,
            text=True,
            check=True,
            env={"COLUMNS": "200", "NO_COLOR": "1", "PATH": "/usr/bin:/bin"},
        ).stdout
        assert [option for option in options if option not in shown] == [], name
