"""The contents of the code location, so that nothing disappears unnoticed, and the files that name it."""

import subprocess
import sys
import tomllib
from datetime import UTC, datetime
from pathlib import Path

import dagster as dg
import pytest
import yaml

from dagster_backfills.dagster.resource import PostgresResource
from dagster_backfills.definitions import defs
from dagster_backfills_tests.programs import run

_STUB = "dagster/auto_created_stub_asset"  # read, but without a description
# Filled elsewhere, by schema: source tables, files, views that dashboards read.
AROUND = {
    "backfill": {"batches", "failures", "stale_marks"},
    "jobs": {
        "active_jobs",
        "average_durations",
        "job_queue",
        "job_types",
        "my_jobs",
        "queue_metrics",
        "queue_settings",
        "repeatedly_failing_jobs",
        "stuck_jobs",
    },
    "kintell": {
        "backfill_daily_summary",
        "backfill_job_batches",
        "backfill_job_history",
        "backfill_jobs",
        "backfill_row_errors",
        "event_outbox",
        "event_stream",
        "inbox",
        "sessions_per_date",
        "users",
    },
    "operations": {"backfill_days", "job_days", "open_failures"},
    "progress": {
        "classes",
        "cohort_dashboard",
        "cohort_status",
        "cohorts",
        "modules",
        "questions",
        "schools",
        "student_dashboard",
        "user_progress",
        "users",
    },
    "scoring": {"member_coaches", "member_scores", "members", "visits"},
    "training": {"members", "organization_status", "organizations", "training_videos"},
}
# Each asset and its checks.
ASSETS = [
    ("jobs/background_jobs", ("no_stuck_jobs", "no_type_fails_repeatedly")),
    ("kintell/daily_session_summary", ()),
    ("kintell/kintell_sessions", ("events_leave", "imports_add_up", "no_dead_imports")),
    ("operations/job_runs", ()),
    ("progress/cohort_stats", ("average_is_mean_of_students", "fresh")),
    (
        "progress/user_progress_stats",
        ("every_active_student_has_stats", "no_open_failures", "stats_in_range"),
    ),
    ("scoring/churn_risk_scores", ("every_scored_member_has_a_risk", "scores_in_range")),
    ("scoring/coach_actions", ("coach_coverage",)),
    (
        "scoring/commitment_scores",
        ("distribution_is_steady", "every_active_member_has_a_score", "scores_in_range"),
    ),
    ("training/employee_training_video_completions", ("every_member_has_its_records", "no_open_failures")),
    ("training/organization_training_progress", ("fresh", "progress_is_counted_right")),
]
JOBS = {
    "churn_risk_scores_job",
    "clean_up_background_jobs",
    "coach_actions_job",
    "commitment_scores_job",
    "control_progress_stats",
    "control_training_completions",
    "drain_background_jobs",
    "import_kintell_sessions",
    "materialize_daily_session_summary",
    "materialize_progress_stats",
    "materialize_training_completions",
    "observe_sources",
    "plan_progress_stats",
    "plan_scoring",
    "plan_training_completions",
    "prune_journal",
    "publish_kintell_events",
    "refresh_daily_session_summary",
    "refresh_progress_stats",
    "refresh_training_completions",
    "replay_kintell_errors",
    "report_job_history",
    "rollback_kintell_import",
    "rollback_training_backfill",
    "score_one_gym",
    "scoring_chain_job",
    "thin_dagster_event_log",
    "undo_progress_stats",
    "undo_training_completions",
}
SCHEDULES = {
    "clean_up_background_jobs_daily",
    "daily_event_log_thinning",
    "daily_job_history",
    "daily_scoring_schedule",
    "nightly_progress_stats",
    "prune_journal_daily",
}
SENSORS = {
    "automation",
    "background_jobs_waiting",
    "churn_risk_after_commitment",
    "coach_actions_after_churn_risk",
    "kintell_events",
    "kintell_inbox",
    "kintell_summary_refresh",
    "missed_scoring_days",
    "progress_cohorts_sync",
    "progress_stats_refresh",
    "training_completions_refresh",
    "training_organizations_sync",
}


@pytest.fixture(scope="module")
def location() -> dg.Definitions:
    return defs()


def test_the_location_has_these_assets_checks_jobs_schedules_and_sensors(location: dg.Definitions) -> None:
    repository = location.get_repository_def()
    graph = location.resolve_asset_graph()
    made = graph.materializable_asset_keys | graph.observable_asset_keys | graph.external_asset_keys
    assets = {key.to_user_string() for key in made}
    checks = {f"{key.asset_key.to_user_string()}:{key.name}" for key in graph.asset_check_keys}
    assert not [key for key in made if graph.get(key).metadata.get(_STUB)]
    around = {f"{schema}/{name}" for schema, names in AROUND.items() for name in names}
    assert assets == {asset for asset, _ in ASSETS} | around
    assert checks == {f"{asset}:{check}" for asset, checks in ASSETS for check in checks}
    assert {name for name in repository.job_names if not name.startswith("__")} == JOBS
    assert {schedule.name for schedule in repository.schedule_defs} == SCHEDULES
    assert {sensor.name for sensor in repository.sensor_defs} == SENSORS


def test_an_assets_key_is_its_table_and_its_group_the_schema(location: dg.Definitions) -> None:
    graph = location.resolve_asset_graph()
    for node in graph.asset_nodes:
        assert len(node.key.path) == 2
        assert node.group_name == node.key.path[0]


def test_all_assets_but_the_job_queue_are_connected_in_the_lineage(location: dg.Definitions) -> None:
    graph = location.resolve_asset_graph()
    parts: list[set[str]] = []
    left = {node.key: node.parent_keys | node.child_keys for node in graph.asset_nodes}
    while left:
        part, reached = set(), {next(iter(left))}
        while reached:
            key = reached.pop()
            part.add(key.path[0])
            reached |= left.pop(key) & left.keys()
        parts.append(part)
    # Jobs of the queue come from applications and return to them: no other table depends on them.
    assert sorted(parts, key=len) == [
        {"jobs"},
        {"backfill", "kintell", "operations", "progress", "scoring", "training"},
    ]


def test_every_asset_is_automated_or_observed_or_a_view(
    location: dg.Definitions,
) -> None:
    graph, repository = location.resolve_asset_graph(), location.get_repository_def()
    jobs = {name for s in repository.schedule_defs for name in [s.job_name]}
    jobs |= {target.job_name for s in repository.sensor_defs for target in s.targets}
    attended = {key for name in jobs for key in repository.get_job(name).asset_layer.executable_asset_keys}
    for node in graph.asset_nodes:
        if "view" in node.kinds:
            assert "A view: computed whenever it is read" in (node.description or ""), node.key
        else:
            assert node.automation_condition or node.key in attended, node.key


def test_every_launchpad_is_flat_and_describes_each_field(location: dg.Definitions) -> None:
    repository = location.get_repository_def()
    for job in map(repository.get_job, JOBS):
        if not job.config_mapping:
            asked = [getattr(node.config_field.config_type, "fields", None) for node in job.all_node_defs]  # type: ignore[union-attr]
            assert not any(asked), job.name
            continue
        for name, field in job.run_config_schema.config_type.fields.items():  # type: ignore[attr-defined]
            kind = getattr(field.config_type, "inner_type", field.config_type).kind.value
            assert field.description and "SHAPE" not in kind and kind != "SELECTOR", (job.name, name)


def test_every_schedule_and_sensor_is_running_by_default(location: dg.Definitions) -> None:
    repository = location.get_repository_def()
    assert {s.default_status for s in repository.sensor_defs} == {dg.DefaultSensorStatus.RUNNING}
    assert {s.default_status for s in repository.schedule_defs} == {dg.DefaultScheduleStatus.RUNNING}


def test_schedules_launch_runs_with_valid_configuration(location: dg.Definitions, database_url: str) -> None:
    repository = location.get_repository_def()
    given = {"postgres": PostgresResource(url=database_url)}  # scoring reads the current day from it
    for schedule in repository.schedule_defs:
        with (
            dg.instance_for_test() as instance,
            dg.build_schedule_context(
                instance,
                resources=given,
                scheduled_execution_time=datetime(2026, 11, 22, 2, tzinfo=UTC),
                repository_def=repository,
            ) as context,
        ):
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


@pytest.mark.programs
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
    done = run([script, *command[1:]], cwd=project_root, timeout=240)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.programs
def test_loading_emits_no_beta_or_preview_warnings() -> None:
    load = "import warnings; warnings.simplefilter('always'); from dagster_backfills.definitions import defs; defs()"
    done = subprocess.run([sys.executable, "-c", load], capture_output=True, text=True, check=True)
    assert "BetaWarning" not in done.stderr and "PreviewWarning" not in done.stderr
