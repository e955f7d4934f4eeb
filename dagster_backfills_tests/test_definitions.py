"""What the code location is made of, so that nothing vanishes unseen, and the files that name it."""

import subprocess
import sys
import tomllib
from pathlib import Path

import dagster as dg
import pytest
import yaml

from dagster_backfills.definitions import defs


@pytest.fixture(scope="module")
def location() -> dg.Definitions:
    return defs()


def test_the_location_holds_these_assets_checks_jobs_schedules_and_sensors(location: dg.Definitions) -> None:
    repository = location.get_repository_def()
    graph = location.resolve_asset_graph()
    assert {key.to_user_string() for key in graph.get_all_asset_keys()} == {
        "progress/user_progress_stats",
        "progress/cohort_stats",
        "training/employee_training_video_completions",
        "training/organization_training_progress",
    }
    assert {f"{key.asset_key.to_user_string()}:{key.name}" for key in graph.asset_check_keys} == {
        "progress/user_progress_stats:every_active_student_has_stats",
        "progress/user_progress_stats:stats_in_range",
        "progress/user_progress_stats:no_open_failures",
        "progress/cohort_stats:fresh",
        "progress/cohort_stats:average_is_mean_of_students",
        "training/employee_training_video_completions:every_member_has_its_records",
        "training/employee_training_video_completions:no_open_failures",
        "training/organization_training_progress:progress_is_counted_right",
        "training/organization_training_progress:fresh",
    }
    assert {name for name in repository.job_names if not name.startswith("__")} == {
        "refresh_progress_stats",
        "refresh_training_completions",
        "rollback_training_backfill",
    }
    assert {schedule.name for schedule in repository.schedule_defs} == {"nightly_progress_stats"}
    assert {sensor.name for sensor in repository.sensor_defs} == {
        "automation",
        "progress_cohorts_sync",
        "progress_stats_refresh",
        "training_organizations_sync",
        "training_completions_refresh",
    }


def test_an_assets_key_is_its_tables_address_and_its_group_the_schema(location: dg.Definitions) -> None:
    for node in location.resolve_asset_graph().asset_nodes:
        assert len(node.key.path) == 2
        assert node.group_name == node.key.path[0]


def test_everything_that_ticks_is_on_without_anyone_turning_it_on(location: dg.Definitions) -> None:
    repository = location.get_repository_def()
    assert {s.default_status for s in repository.sensor_defs} == {dg.DefaultSensorStatus.RUNNING}
    assert {s.default_status for s in repository.schedule_defs} == {dg.DefaultScheduleStatus.RUNNING}


def test_what_schedules_launch_is_a_valid_configuration(location: dg.Definitions) -> None:
    repository = location.get_repository_def()
    for schedule in repository.schedule_defs:
        with dg.instance_for_test() as instance:
            context = dg.build_schedule_context(instance, repository_def=repository)
            data = schedule.evaluate_tick(context)
        for request in data.run_requests or []:
            assert (
                dg.validate_run_config(repository.get_job(schedule.job_name), request.run_config) is not None
            )


def test_workspace_and_project_file_name_the_same_location(project_root: Path) -> None:
    workspace = yaml.safe_load((project_root / "workspace.yaml").read_text())
    (module,) = [entry["python_module"] for entry in workspace["load_from"]]
    tool = tomllib.loads((project_root / "pyproject.toml").read_text())["tool"]
    project = tool["dg"]["project"]
    assert project["root_module"] == "dagster_backfills"
    assert project["code_location_target_module"] == module["module_name"] == "dagster_backfills.definitions"
    assert project["code_location_name"] == module["location_name"]
    assert "dagster" not in tool


def test_importing_the_location_loads_no_data_library_and_opens_no_connection(project_root: Path) -> None:
    code = (
        "import sys, dagster_backfills.definitions as d; d.defs();"
        "heavy = {'pandas', 'polars', 'pyarrow', 'pandera', 'matplotlib', 'nats', 'openai', 'numpy'};"
        "loaded = heavy & set(sys.modules); assert not loaded, loaded"
    )
    environment = {"PATH": "", "HOME": "/nonexistent", "DATABASE_URL": "postgresql://nobody@127.0.0.1:1/none"}
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=project_root,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr


@pytest.mark.e2e
@pytest.mark.parametrize(
    "command",
    [
        ("dagster", "definitions", "validate", "-w", "workspace.yaml"),
        ("dg", "check", "defs"),
        ("dg", "list", "defs"),
    ],
    ids=" ".join,
)
def test_the_location_loads_every_way_that_dagster_offers(
    command: tuple[str, ...], project_root: Path
) -> None:
    script = str(Path(sys.executable).with_name(command[0]))
    done = subprocess.run(
        [script, *command[1:]], cwd=project_root, capture_output=True, text=True, timeout=240, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
