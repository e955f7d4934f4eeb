"""E-mail on failure through Dagster's own sensor, received by a real SMTP server on this machine."""

import socket
import ssl
from collections.abc import Iterator
from dataclasses import dataclass, field
from email import message_from_bytes
from pathlib import Path

import dagster as dg
import pytest
import trustme
from aiosmtpd.controller import Controller
from aiosmtpd.smtp import SMTP, AuthResult, Envelope, LoginPassword, Session

from dagster_backfills.defs.scoring import jobs
from dagster_backfills.defs.scoring.notifications import failure_email_sensor
from dagster_backfills.lib.errors import UserError
from dagster_backfills_tests.defs.scoring.conftest import Gyms
from dagster_backfills_tests.defs.scoring.test_schedule_and_sensors import Chain, chain  # noqa: F401


@dataclass
class Inbox:
    """What the server has received."""

    received: list[Envelope] = field(default_factory=list)

    async def handle_DATA(self, server: SMTP, session: Session, envelope: Envelope) -> str:
        self.received.append(envelope)
        return "250 OK"


def accept(
    server: SMTP, session: Session, envelope: Envelope, mechanism: str, data: LoginPassword
) -> AuthResult:
    return AuthResult(success=(data.login, data.password) == (b"robot@example.test", b"secret"))


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("localhost", 0))
        return probe.getsockname()[1]


class ImplicitTls(Controller):
    """TLS from the first byte."""


class StartTls(Controller):
    """TLS once it is asked for."""

    def factory(self) -> SMTP:
        return SMTP(self.handler, tls_context=self.tls, require_starttls=True, authenticator=accept)


@pytest.fixture(params=["SSL", "STARTTLS"])
def smtp(
    request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[tuple[Inbox, dict[str, str]]]:
    """A server with a certificate that this process trusts, and the environment that points at it."""
    authority, inbox = trustme.CA(), Inbox()
    authority.cert_pem.write_to_path(tmp_path / "ca.pem")
    monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "ca.pem"))
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    authority.issue_cert("localhost").configure_cert(context)
    if request.param == "SSL":
        controller: Controller = ImplicitTls(
            inbox, hostname="localhost", port=free_port(), ssl_context=context, authenticator=accept,
            auth_required=True, auth_require_tls=False,
        )  # fmt: skip
    else:
        controller = StartTls(inbox, hostname="localhost", port=free_port())
        controller.tls = context  # type: ignore[attr-defined]
    controller.start()
    yield (
        inbox,
        {
            "SCORING_EMAIL_TO": "coach@example.test, boss@example.test",
            "SCORING_EMAIL_FROM": "robot@example.test",
            "SCORING_SMTP_HOST": "localhost",
            "SCORING_SMTP_PORT": str(controller.port),
            "SCORING_SMTP_TYPE": request.param,
            "SCORING_SMTP_PASSWORD": "secret",
            "DAGSTER_WEBSERVER_URL": "http://dagster.example.test",
        },
    )
    controller.stop()


def failed_run(gyms: Gyms, chain: Chain) -> dg.RunFailureSensorContext:  # noqa: F811
    gyms.member("a", 1)
    gyms.conn.execute('alter table scoring.visits rename to "Besuche für <später>"')
    job = chain.definitions().resolve_job_def(jobs.commitment_scores_job.name)
    result = job.execute_in_process(partition_key="2026-06-30", instance=chain.instance, raise_on_error=False)
    return dg.build_run_status_sensor_context(
        "scoring_failure_email", result.get_run_failure_event(), chain.instance, result.dagster_run
    ).for_run_failure()  # fmt: skip


def test_a_failed_run_is_told_by_mail(
    smtp: tuple[Inbox, dict[str, str]],
    gyms: Gyms,
    chain: Chain,  # noqa: F811
) -> None:
    inbox, environment = smtp
    sensor = failure_email_sensor(environment)
    assert sensor is not None
    sensor(failed_run(gyms, chain))
    (envelope,) = inbox.received
    assert envelope.rcpt_tos == ["coach@example.test", "boss@example.test"]
    message = message_from_bytes(envelope.content or b"")
    assert message["Subject"] == "[JOB FAILURE] commitment_scores_job 2026-06-30"
    assert message.get_content_type() == "text/html"
    text = str(message.get_payload())
    assert "Job commitment_scores_job failed for 2026-06-30." in text
    assert "relation &quot;scoring.visits&quot; does not exist" in text
    assert "http://dagster.example.test/runs/" in text


def test_without_an_address_there_is_no_sensor() -> None:
    assert failure_email_sensor({}) is None
    assert failure_email_sensor({"SCORING_EMAIL_TO": " , "}) is None


def test_half_a_configuration_is_refused_by_name() -> None:
    with pytest.raises(UserError, match="SCORING_EMAIL_FROM, SCORING_SMTP_PASSWORD not"):
        failure_email_sensor({"SCORING_EMAIL_TO": "a@b.test", "SCORING_SMTP_HOST": "localhost"})
    complete = {
        "SCORING_EMAIL_TO": "a@b.test",
        "SCORING_EMAIL_FROM": "c@b.test",
        "SCORING_SMTP_HOST": "localhost",
        "SCORING_SMTP_PASSWORD": "x",
    }
    for wrong in ({"SCORING_SMTP_TYPE": "PLAIN"}, {"SCORING_SMTP_PORT": "smtp"}):
        with pytest.raises(UserError, match="SSL or STARTTLS"):
            failure_email_sensor(complete | wrong)
