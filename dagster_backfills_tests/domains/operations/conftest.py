"""A Dagster instance with runs, and real local SMTP and HTTP servers that receive notifications."""

import json
import socket
import ssl
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import dagster as dg
import pytest
import trustme
from aiosmtpd.controller import Controller
from aiosmtpd.smtp import SMTP, AuthResult, Envelope, LoginPassword, Session

from dagster_backfills.dagster.resource import PostgresResource
from dagster_backfills.engine import ledger
from dagster_backfills.engine.outcome import Failure


@pytest.fixture
def instance() -> Iterator[dg.DagsterInstance]:
    with dg.DagsterInstance.ephemeral() as made:
        yield made


class Work(dg.Config):
    fail: str = ""
    left: str = ""


@dg.op
def work(context: dg.OpExecutionContext, config: Work, postgres: PostgresResource) -> None:
    """Fail with this message and two units in the ledger, or succeed except for the unit `left`."""
    units = [f"{unit} {context.run_id[:8]}" for unit in ("a <b>", "ü")] if config.fail else [config.left]
    with postgres.connect() as conn:
        for unit in filter(None, units):
            ledger.record_failure(
                conn,
                ledger.RunIdentity(context.run_id, "work", context.run_id, False),
                Failure("progress/cohort_stats", "c1", unit, "CheckViolation", None, "bad & worse"),
            )
        conn.commit()
    if config.fail:
        raise ValueError(config.fail)


@dg.job
def working_job() -> None:
    work()


@dataclass
class Location:
    """A job that can be made to fail, run in the instance on the test's database."""

    url: str
    instance: dg.DagsterInstance

    def run(self, fail: str = "", left: str = "", **tags: str) -> str:
        result = working_job.execute_in_process(
            {"ops": {"work": {"config": {"fail": fail, "left": left}}}},
            instance=self.instance,
            resources={"postgres": PostgresResource(url=self.url)},
            raise_on_error=False,
            tags=tags,
        )
        assert result.success is not bool(fail)
        return result.run_id


@pytest.fixture
def location(database_url: str, instance: dg.DagsterInstance) -> Location:
    return Location(database_url, instance)


@dataclass
class Inbox:
    """The messages that the mail server has received. While `refuses` is set, it rejects all."""

    received: list[Envelope] = field(default_factory=list)
    refuses: bool = False

    async def handle_DATA(self, server: SMTP, session: Session, envelope: Envelope) -> str:
        if self.refuses:
            return "451 Not now"
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


class StartTls(Controller):
    """TLS by STARTTLS."""

    tls: ssl.SSLContext | None = None

    def factory(self) -> SMTP:
        return SMTP(
            self.handler,
            tls_context=self.tls,
            require_starttls=True,
            authenticator=accept,
            auth_required=True,
        )


@pytest.fixture(params=["SSL", "STARTTLS", "NONE"])
def smtp(
    request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[tuple[Inbox, dict[str, str]]]:
    """A server with a certificate that this process trusts, and the environment that points at it."""
    authority, inbox, port = trustme.CA(), Inbox(), free_port()
    authority.cert_pem.write_to_path(tmp_path / "ca.pem")
    monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "ca.pem"))
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    authority.issue_cert("localhost").configure_cert(context)
    if request.param == "SSL":
        controller = Controller(
            inbox, hostname="localhost", port=port, ssl_context=context, authenticator=accept, auth_required=True,
            auth_require_tls=False,
        )  # fmt: skip
    elif request.param == "STARTTLS":
        controller = StartTls(inbox, hostname="localhost", port=port)
        controller.tls = context
    else:
        controller = Controller(inbox, hostname="localhost", port=port)
    controller.start()
    environment = {
        "NOTIFY_EMAIL_TO": "coach@example.test, boss@example.test",
        "NOTIFY_EMAIL_FROM": "robot@example.test",
        "NOTIFY_SMTP_HOST": "localhost",
        "NOTIFY_SMTP_PORT": str(port),
        "NOTIFY_SMTP_SECURITY": request.param,
        "DAGSTER_WEBSERVER_URL": "http://dagster.example.test/",
    }
    if request.param != "NONE":
        environment["NOTIFY_SMTP_PASSWORD"] = "secret"
    yield inbox, environment
    controller.stop()


@dataclass
class Webhook:
    """A server that answers like Slack's webhooks, and records the request bodies."""

    url: str = ""
    taken: list[dict[str, Any]] = field(default_factory=list)
    status: int = 200


@pytest.fixture
def webhook() -> Iterator[Webhook]:
    hook = Webhook()

    class Answer(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            if hook.status == 200:
                hook.taken.append(body)
            self.send_response(hook.status)
            self.end_headers()
            self.wfile.write(b"ok" if hook.status == 200 else b"no_service")

        def log_message(self, format: str, *args: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Answer)
    hook.url = f"http://127.0.0.1:{server.server_port}/services/T0/B0/planted-secret"
    threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
    yield hook
    server.shutdown()
    server.server_close()
