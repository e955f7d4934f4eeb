"""A project's folder of definitions is found, and loads even if Dagster can't load one of its files."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import dagster as dg
import pytest

import dagster_backfills
from dagster_backfills.components.loading import declared
from dagster_backfills.dagster import private_loader
from dagster_backfills.errors import UserError
from dagster_backfills_tests.components.adopting import EXAMPLES, copied, project_in, said_of

GOOD = (EXAMPLES / "member_months" / "defs.yaml").read_text()
OF = "type: dagster_backfills.PostgresBackfill\n"
UNREADABLE = {
    "a syntax error": (OF + "attributes:\n  tables: [{table: x.y}\n", "line 4: this is not valid YAML: "),
    "a tab": (OF + "attributes:\n\ttables: []\n", "line 3: this is not valid YAML: found character '\\t'"),
    "attributes that are a list": (
        OF + "attributes:\n  - table: x.y\n",
        "line 2: `attributes`: expected lines of `name: value`, found a list.",
    ),
    "attributes that are a text": (
        OF + "attributes: tables\n",
        "line 2: `attributes`: expected lines of `name: value`, found 'tables'.",
    ),
    "an unknown component": (
        GOOD.replace("PostgresBackfill", "PostgresBackfil"),
        "line 2: there is no component `dagster_backfills.PostgresBackfil`: module 'dagster_backfills' has no "
        "attribute 'PostgresBackfil'. `dg list components` lists them",
    ),
    "an unknown module": (
        GOOD.replace("dagster_backfills.", "backfills."),
        "line 2: there is no component `backfills.PostgresBackfill`: No module named 'backfills'.",
    ),
    "what is no component": (
        GOOD.replace("PostgresBackfill", "JobError"),
        "line 2: there is no component `dagster_backfills.JobError`: it is not a component class.",
    ),
    "a component without a module": (
        GOOD.replace("dagster_backfills.PostgresBackfill", "PostgresBackfill"),
        "line 2: there is no component `PostgresBackfill`",
    ),
    "no component": (
        GOOD.replace("type:", "typ:"),
        "line 2: there is no attribute `typ`. Did you mean type?",
    ),
    "an unknown entry beside the attributes": (
        GOOD.replace("attributes:", "atributes:"),
        "line 3: there is no attribute `atributes`. Did you mean attributes?",
    ),
    "nothing at all": ("", "defs.yaml: expected lines of `name: value`, found nothing."),
    "a list": ("- type: x\n", "defs.yaml: expected lines of `name: value`, found a list."),
}


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.syspath_prepend(str(tmp_path))
    return project_in(tmp_path)


def bad(project: Path, text: str, folder: str = "months") -> Path:
    (project / folder).mkdir(parents=True)
    (project / folder / "defs.yaml").write_text(text)
    return project / folder


@pytest.mark.parametrize(("text", "message"), UNREADABLE.values(), ids=UNREADABLE)
def test_a_file_that_dagster_can_not_load_is_replaced_by_its_error_and_the_others_load(
    project: Path, text: str, message: str
) -> None:
    folder = bad(project, text)
    there = said_of(dagster_backfills.load_from_defs_folder(path_within_project=project))
    assert "kintell/users" in there
    assert f"{folder / 'defs.yaml'}" in there["months_declaration"]
    assert message in there["months_declaration"]
    with pytest.raises(Exception):  # noqa: B017  # as Dagster's own loader has it: that of this test would be for nothing
        dg.load_from_defs_folder(path_within_project=project)


@pytest.mark.parametrize(
    ("text", "message"), [case for case in UNREADABLE.values() if OF in case[0] and case[0] != GOOD]
)
def test_commands_report_the_same_mistake(project: Path, text: str, message: str) -> None:
    with pytest.raises(UserError) as raised:
        declared(bad(project, text))
    assert message in str(raised.value)


def test_two_bad_files_with_the_same_folder_name_get_different_assets(project: Path) -> None:
    for above in ("north", "south"):
        bad(project, "[", f"{above}/months")
    copied(project / "north", "member_months")
    there = said_of(dagster_backfills.load_from_defs_folder(path_within_project=project))
    assert {"north_months_declaration", "south_months_declaration", "kintell/users"} <= set(there)
    assert "attendance/member_months" in there


def test_a_project_of_nothing_but_a_bad_file_loads(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(tmp_path))
    project = project_in(tmp_path)
    (project / "kintell_users" / "defs.yaml").write_text("[")
    assert set(said_of(dagster_backfills.load_from_defs_folder(path_within_project=project))) == {
        "kintell_users_declaration"
    }


def test_a_project_without_a_mistake_is_loaded_as_dagster_loads_it(project: Path) -> None:
    ours = dagster_backfills.load_from_defs_folder(path_within_project=project)
    assert said_of(ours) == said_of(dg.load_from_defs_folder(path_within_project=project))


def test_without_the_private_loader_a_good_project_loads_and_a_bad_file_fails_it(
    project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def moved(name: str) -> None:
        raise ImportError(f"no {name}")

    monkeypatch.setattr(private_loader, "importlib", SimpleNamespace(import_module=moved))
    with pytest.warns(UserWarning, match="keeps all from loading"):
        assert "kintell/users" in said_of(
            dagster_backfills.load_from_defs_folder(path_within_project=project)
        )
    bad(project, "[")
    with pytest.warns(UserWarning, match="keeps all from loading"), pytest.raises(Exception, match="root"):
        dagster_backfills.load_from_defs_folder(path_within_project=project)


@pytest.mark.e2e
def test_a_bad_file_of_this_package_does_not_affect_the_others(tmp_path: Path, project_root: Path) -> None:
    """In an edited copy of the package, without the code that needs the declaration."""
    shutil.copytree(project_root / "dagster_backfills", tmp_path / "dagster_backfills")
    shutil.copy(project_root / "pyproject.toml", tmp_path)
    file = tmp_path / "dagster_backfills" / "defs" / "training" / "defs.yaml"
    file.write_text(file.read_text().replace("attributes:", "attributes: ["))
    code = (
        "from dagster_backfills.definitions import defs\n"
        "print(*(key.to_user_string() for key in defs().resolve_asset_graph().materializable_asset_keys))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, env=os.environ | {"BACKFILLS_DOMAINS": "all"},
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    there = set(done.stdout.split())
    assert {"training_declaration", "training_rollback_jobs_declaration"} <= there, done.stderr[-3000:]
    assert "progress/cohort_stats" in there
    assert re.search(rf"{file}, line \d+: this is not valid YAML", done.stderr)
