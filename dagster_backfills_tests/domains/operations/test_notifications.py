"""Notifications of failed runs, from the sensor's tick to a real SMTP server and a fake Slack webhook."""

from email import message_from_bytes, policy

import dagster as dg
import pytest

from dagster_backfills.dagster.resource import PostgresResource
from dagster_backfills.defs.operations.channels import NotificationSettings, NotSentError, checked_channels
from dagster_backfills.defs.operations.notifications import FailedRun, message_of
from dagster_backfills.defs.operations.sensors import failure_sensors
from dagster_backfills.errors import UserError
from dagster_backfills_tests.domains.operations.conftest import Inbox, Location, Webhook

QUIET = "No run has failed, and no unit has failed."


class Ticks:
    """Evaluates a sensor like the daemon: the cursor is stored unless a tick fails."""

    def __init__(self, environment: dict[str, str], location: Location) -> None:
        (self.sensor,) = failure_sensors(environment)
        given = {n[7:].lower(): value for n, value in environment.items() if n.startswith("NOTIFY_")}
        self.settings = NotificationSettings(**given)
        self.location, self.cursor = location, None
        self.tick()

    def tick(self) -> str:
        with dg.build_sensor_context(
            instance=self.location.instance,
            cursor=self.cursor,
            resources={
                "postgres": PostgresResource(url=self.location.url),
                "notifications": self.settings,
            },
        ) as context:
            data = self.sensor.evaluate_tick(context)
        self.cursor = data.cursor
        return data.skip_message or ""


def test_a_failed_run_of_any_job_is_mailed_with_its_units_and_a_link(
    smtp: tuple[Inbox, dict[str, str]], location: Location
) -> None:
    inbox, environment = smtp
    location.run(fail="before anyone asked")
    ticks = Ticks(environment, location)
    assert ticks.tick() == QUIET
    location.run()
    run = location.run(fail="postgresql://me:hidden@host/db <is> away", **{"dagster/partition": "ünits"})
    assert ticks.tick().startswith("Runs reported: 1;")
    assert ticks.tick() == QUIET
    (envelope,) = inbox.received
    assert envelope.rcpt_tos == ["coach@example.test", "boss@example.test"]
    mail = message_from_bytes(envelope.content or b"", policy=policy.default)
    assert mail["Subject"] == "[JOB FAILURE] working_job ünits"
    plain, rich = (mail.get_body([kind]).get_content() for kind in ("plain", "html"))
    for text in (plain, rich):
        assert f"http://dagster.example.test/runs/{run}" in text
        assert "hidden" not in text
    assert f"- progress/cohort_stats c1 a <b> {run[:8]}: bad & worse" in plain
    assert f"<li>progress/cohort_stats c1 a &lt;b&gt; {run[:8]}: bad &amp; worse</li>" in rich
    assert "ValueError: postgresql://me:***@host/db <is> away" in plain


def test_slack_messages_use_slacks_markup(webhook: Webhook, location: Location) -> None:
    ticks = Ticks(
        {"NOTIFY_SLACK_WEBHOOK_URL": webhook.url, "DAGSTER_WEBSERVER_URL": "http://ui.test"}, location
    )
    run = location.run(fail="1 < 2 & so on")
    ticks.tick()
    (body,) = webhook.taken
    assert body["text"] == "[JOB FAILURE] working_job"
    (block,) = body["blocks"]
    output = block["text"]["text"].splitlines()
    assert output[0] == f"*working_job* failed. <http://ui.test/runs/{run}|Run {run[:8]}>"
    assert "ValueError: 1 &lt; 2 &amp; so on" in output
    assert f"• progress/cohort_stats c1 a &lt;b&gt; {run[:8]}: bad &amp; worse" in output


def test_new_unit_failures_of_a_run_are_notified_once(webhook: Webhook, location: Location) -> None:
    location.run(left="before anyone asked")
    ticks = Ticks({"NOTIFY_SLACK_WEBHOOK_URL": webhook.url}, location)
    assert ticks.tick() == QUIET
    run = location.run(left="learner <9>")
    assert ticks.tick() == "Runs reported: 1; being retried: 0."
    location.run(left="learner <9>")  # again, without new failures
    location.run()
    assert ticks.tick() == QUIET
    (body,) = webhook.taken
    assert body["text"] == "[FAILED UNITS] working_job"
    assert body["blocks"][0]["text"]["text"].splitlines() == [
        f"*working_job* succeeded, but 1 unit failed. Run {run}",
        "• progress/cohort_stats c1 learner &lt;9&gt;: bad &amp; worse",
    ]


def test_a_failed_run_and_one_with_units_are_one_message(webhook: Webhook, location: Location) -> None:
    ticks = Ticks({"NOTIFY_SLACK_WEBHOOK_URL": webhook.url}, location)
    location.run(left="learner")
    location.run(fail="broken")
    ticks.tick()
    (body,) = webhook.taken
    assert body["text"] == "[JOB FAILURE] 2 runs"
    assert [block["text"]["text"].split("*")[2].split(".")[0] for block in body["blocks"]] == [
        " failed",
        " succeeded, but 1 unit failed",
    ]


def test_an_undelivered_notification_is_sent_later_exactly_once(webhook: Webhook, location: Location) -> None:
    ticks = Ticks({"NOTIFY_SLACK_WEBHOOK_URL": webhook.url}, location)
    location.run(fail="first")
    webhook.status = 503
    with pytest.raises(NotSentError, match="answered 503: no_service") as refused:
        ticks.tick()
    assert "planted-secret" not in str(refused.value)
    location.run(fail="second")
    webhook.status = 200
    ticks.tick()
    ticks.tick()
    (body,) = webhook.taken
    assert body["text"] == "[JOB FAILURE] 2 runs"
    assert ["first" in block["text"]["text"] for block in body["blocks"]] == [True, False]


def test_a_message_that_the_mail_server_rejected_is_sent_again(
    smtp: tuple[Inbox, dict[str, str]], location: Location
) -> None:
    inbox, environment = smtp
    ticks = Ticks(environment, location)
    location.run(fail="once")
    inbox.refuses = True
    with pytest.raises(NotSentError, match="did not accept the e-mail: 451 Not now"):
        ticks.tick()
    inbox.refuses = False
    ticks.tick()
    assert len(inbox.received) == 1


def test_a_run_that_is_retried_automatically_is_not_notified(webhook: Webhook, location: Location) -> None:
    ticks = Ticks({"NOTIFY_SLACK_WEBHOOK_URL": webhook.url}, location)
    location.instance.add_run_tags(location.run(fail="its process died"), {"dagster/will_retry": "true"})
    assert ticks.tick() == "Runs reported: 0; being retried: 1."
    assert webhook.taken == []


def test_many_failures_give_one_message_of_bounded_size() -> None:
    runs = [FailedRun(str(n), "job", None, ("x" * 5000,), (), None) for n in range(60)]
    message = message_of(runs)
    assert message.subject == "[JOB FAILURE] 60 runs"
    body = message.slack()
    assert len(body["blocks"]) == 11
    assert all(len(block["text"]["text"]) <= 3000 for block in body["blocks"])
    assert "And 50 more runs." in message.text()


def test_line_breaks_in_a_partition_key_do_not_inject_headers() -> None:
    message = message_of([FailedRun("r", "job", "a\r\nBcc: all@example.test", (), (), None)])
    assert message.subject == "[JOB FAILURE] job a Bcc: all@example.test"


def test_notifications_are_off_by_default() -> None:
    assert failure_sensors({}) == []
    assert failure_sensors({"NOTIFY_EMAIL_TO": " , ", "NOTIFY_SLACK_WEBHOOK_URL": " "}) == []


def test_each_channel_has_its_own_sensor() -> None:
    both = {
        "NOTIFY_EMAIL_TO": "a@b.test",
        "NOTIFY_EMAIL_FROM": "c@d.test",
        "NOTIFY_SMTP_HOST": "localhost",
        "NOTIFY_SLACK_WEBHOOK_URL": "https://hooks.example.test/x",
    }
    assert [sensor.name for sensor in failure_sensors(both)] == ["failure_email", "failure_slack"]
    settings = {name.removeprefix("NOTIFY_").lower(): value for name, value in both.items()}
    assert "hooks.example" not in repr(NotificationSettings(**settings))


COMPLETE = {"NOTIFY_EMAIL_TO": "a@b.test", "NOTIFY_EMAIL_FROM": "c@b.test", "NOTIFY_SMTP_HOST": "localhost"}


@pytest.mark.parametrize(
    ("environment", "named"),
    [
        ({"NOTIFY_EMAIL_TO": "a@b.test"}, "but not NOTIFY_EMAIL_FROM, NOTIFY_SMTP_HOST"),
        (COMPLETE | {"NOTIFY_SMTP_SECURITY": "PLAIN"}, "SSL, STARTTLS or NONE"),
        (COMPLETE | {"NOTIFY_SMTP_PORT": "smtp"}, "the port to a number"),
        (COMPLETE | {"NOTIFY_SMTP_SECURITY": "NONE", "NOTIFY_SMTP_PASSWORD": "x"}, "sent unencrypted"),
        ({"NOTIFY_SLACK_WEBHOOK_URL": "hooks.slack.example"}, "NOTIFY_SLACK_WEBHOOK_URL is not a URL"),
    ],
)
def test_an_incomplete_configuration_is_rejected_by_name(environment: dict[str, str], named: str) -> None:
    with pytest.raises(UserError, match=named):
        checked_channels(environment)
