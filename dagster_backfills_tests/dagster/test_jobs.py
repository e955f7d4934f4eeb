"""Jobs made from a function, and daily schedules."""

import dagster as dg

from dagster_backfills.dagster.jobs import daily, one_step_job

heard: list[str] = []


class Greeting(dg.Config):
    name: str


@one_step_job("greetings", "Greets somebody.", step="say_it", tags={"backfills/right": "launch"})
def greet(context: dg.OpExecutionContext, config: Greeting) -> None:
    """Say hello."""
    heard.append(config.name)
    context.add_output_metadata({"greeted": config.name})


def test_a_decorated_function_is_a_job_with_a_flat_launchpad() -> None:
    result = greet.execute_in_process(run_config={"name": "Ada"})
    assert heard == ["Ada"]
    (output,) = (event for event in result.all_events if event.is_successful_output)
    assert output.step_key == "say_it"
    assert output.step_output_data.metadata["greeted"].value == "Ada"
    assert not [event for event in result.all_events if event.is_handled_output]


def test_the_job_and_its_step_have_descriptions() -> None:
    assert (greet.name, greet.description, greet.nodes[0].definition.description) == (
        "greet", "Greets somebody.", "Say hello.",
    )  # fmt: skip
    assert greet.tags == {"backfills/domain": "greetings", "backfills/right": "launch"}


def test_a_daily_schedule_runs_at_its_time_in_utc_and_is_on_from_the_start() -> None:
    schedule = daily("05:07", "greeting", greet, "a greeting.")
    assert (schedule.cron_schedule, schedule.execution_timezone) == ("7 5 * * *", "UTC")
    assert schedule.default_status is dg.DefaultScheduleStatus.RUNNING
    assert schedule.description == "05:07 UTC: a greeting."
