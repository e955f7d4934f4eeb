"""Settings from the environment: every number of the engine. A run names an invalid one, and nothing else fails."""

from pathlib import Path
from typing import Any

import dagster as dg
import pytest

from dagster_backfills.dagster.io_manager import VARIABLES, PostgresIOManager
from dagster_backfills.dagster.resource import PostgresResource
from dagster_backfills.definitions import defs
from dagster_backfills.defs.kintell.assets import daily_summary_write
from dagster_backfills.defs.kintell.resources import KintellSettings, SummaryDays
from dagster_backfills.defs.operations.channels import NotificationSettings
from dagster_backfills.defs.operations.sensors import failure_sensors
from dagster_backfills.defs.resources import resources as shared
from dagster_backfills.domains.queue.settings import DrainPolicy, EngineRules, MediaRules
from dagster_backfills.engine.model import Query, WriteSet
from dagster_backfills.engine.settings import EngineSettings
from dagster_backfills.environment import from_environment, usable_from_environment
from dagster_backfills.errors import UserError
from dagster_backfills_tests.dagster.storing import failure_text

# A value other than the default for each number of the engine.
OTHERS = {
    name: {str: "7MB", bool: "0"}.get(field.annotation, "7")
    for name, field in EngineSettings.model_fields.items()
}
BAD = {
    "NOTIFY_EMAIL_TO": "a@b.test",  # and no sender
    "NOTIFY_SLACK_WEBHOOK_URL": "no url",
    "BACKFILLS_BATCH_UNITS": "many",
    "BACKFILLS_LOCK_TIMEOUT": "-1",
    "JOB_HISTORY_KEEP_DAYS": "x",
    "JOBS_MAX_RUNS": "x",
    "KINTELL_FIRST_DAY": "2024-02-30",
}


def test_every_number_of_the_engine_can_be_set_and_reaches_it() -> None:
    given = from_environment(
        EngineSettings, VARIABLES, {VARIABLES + name.upper(): text for name, text in OTHERS.items()}
    )
    manager = PostgresIOManager(postgres=PostgresResource(url="postgresql:///none"), **given)
    settings = manager.settings(WriteSet([])).model_dump()
    assert settings == {name: text if text == "7MB" else int(text) for name, text in OTHERS.items()}


def test_each_field_is_described_in_one_place() -> None:
    for name, field in EngineSettings.model_fields.items():
        assert PostgresIOManager.model_fields[name].description == field.description
        assert field.description


def test_a_bad_variable_is_named_and_the_good_ones_stay() -> None:
    environment = {"BACKFILLS_BATCH_UNITS": "many", "BACKFILLS_DELAY_SECONDS": "2.5", "BACKFILLS_HOME": "/x"}
    with pytest.raises(UserError, match="BACKFILLS_BATCH_UNITS is 'many'"):
        from_environment(EngineSettings, VARIABLES, environment)
    assert usable_from_environment(EngineSettings, VARIABLES, environment) == {"delay_seconds": 2.5}


def test_the_definitions_load_whatever_the_settings_are(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in BAD.items():
        monkeypatch.setenv(name, value)
    location = defs()
    assert location.resolve_all_asset_keys()
    assert {"failure_email", "failure_slack"} <= {sensor.name for sensor in location.sensors or ()}


def test_a_run_names_the_invalid_variable(
    monkeypatch: pytest.MonkeyPatch, database_url: str, conn: Any
) -> None:
    conn.execute("create schema t; create table t.items (id int primary key)")
    monkeypatch.setenv("DATABASE_URL", database_url)
    monkeypatch.setenv("BACKFILLS_BATCH_UNITS", "many")
    items = dg.asset(key_prefix="t", name="items")(lambda: Query("select 1 as id"))

    def run() -> dg.ExecuteInProcessResult:
        definitions = dg.Definitions.merge(
            shared(),  # type: ignore[arg-type]
            dg.Definitions([items], jobs=[dg.define_asset_job("all", "*")]),
        )
        return definitions.resolve_job_def("all").execute_in_process(raise_on_error=False)

    failed = run()
    output = failure_text(failed) + "".join(
        str(event.message) + repr(event.event_specific_data) for event in failed.all_events
    )
    assert not failed.success and "BACKFILLS_BATCH_UNITS is 'many'" in output
    monkeypatch.setenv("BACKFILLS_BATCH_UNITS", "5")
    assert run().success
    assert conn.execute("select id from t.items").fetchall() == [(1,)]


def test_a_tick_names_the_invalid_variable_and_the_other_channel_works(database_url: str) -> None:
    environment = {"NOTIFY_EMAIL_TO": "a@b.test", "NOTIFY_SLACK_WEBHOOK_URL": "https://hooks.example.test/x"}
    email, slack = failure_sensors(environment)
    settings = NotificationSettings(email_to="a@b.test", slack_webhook_url="https://hooks.example.test/x")
    given = {"postgres": PostgresResource(url=database_url), "notifications": settings}
    with dg.DagsterInstance.ephemeral() as instance:
        with (
            dg.build_sensor_context(instance=instance, resources=given) as context,
            pytest.raises(Exception, match="NOTIFY_EMAIL_FROM") as raised,
        ):
            email.evaluate_tick(context)
        assert "but not NOTIFY_EMAIL_FROM, NOTIFY_SMTP_HOST" in f"{raised.value} {raised.value.__cause__}"
        with dg.build_sensor_context(instance=instance, resources=given) as context:
            assert "From now on" in (slack.evaluate_tick(context).skip_message or "")


def test_the_variables_reach_the_sensors_and_no_secret_the_definitions(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("NOTIFY_SLACK_WEBHOOK_URL", "https://hooks.example.test/secret")
    made = NotificationSettings.from_variables(
        {"NOTIFY_SLACK_WEBHOOK_URL": "https://hooks.example.test/secret"}
    )
    assert "secret" not in repr(made)
    with dg.build_resources({"notifications": made}) as built:
        built.notifications.check("slack")
        assert built.notifications.slack_webhook_url.endswith("/secret")


def test_a_summary_names_the_first_invalid_day(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KINTELL_FIRST_DAY", "2024-02-30")
    with pytest.raises(UserError, match="KINTELL_FIRST_DAY is '2024-02-30'"):
        daily_summary_write()


@pytest.mark.parametrize(
    ("prefix", "model", "page"),
    [
        (VARIABLES, EngineSettings, ""),
        ("JOBS_", DrainPolicy, "background-jobs"),
        ("JOBS_", EngineRules, "background-jobs"),
        ("JOBS_MEDIA_", MediaRules, "background-jobs"),
        ("KINTELL_", KintellSettings, "kintell-import"),
        ("KINTELL_", SummaryDays, "kintell-import"),
    ],
)
def test_every_variable_is_documented(project_root: Path, prefix: str, model: Any, page: str) -> None:
    names = [prefix + field.upper() for field in model.model_fields]
    text = (project_root / ".env.example").read_text()
    assert [name for name in names if f"#{name}=" not in text] == []
    output = (project_root / "docs" / "runbooks" / f"{page}.md").read_text() if page else ""
    assert not page or [name for name in names if f"`{name}`" not in output] == []
