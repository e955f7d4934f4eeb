"""`deploy/`: its services as local processes, and their proxy, with real HTTP through real nginx."""

import ipaddress
import json
import re
import socket
import ssl
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
import websockets.sync.client
from websockets.exceptions import InvalidStatus

from dagster_backfills_tests.conftest import new_database
from dagster_backfills_tests.e2e.graphql import LOCATION, REPOSITORY, wait_for
from dagster_backfills_tests.guard.conftest import _group_roles
from dagster_backfills_tests.guard.deployment import USERS, Deployment, deployed, missing_programs

pytestmark = [
    pytest.mark.e2e,
    pytest.mark.timeout(1200),
    pytest.mark.skipif(
        bool(missing_programs()), reason=f"not installed here: {', '.join(missing_programs())}"
    ),
]
DOORS = ("viewers", "operators")
LAUNCH = """mutation($params: ExecutionParams!) { launchRun(executionParams: $params) {
  __typename ... on LaunchRunSuccess { run { runId } } ... on PythonError { message } } }"""
STATUS = "query($id: ID!) { runOrError(runId: $id) { ... on Run { status } } }"
VERSION = "{ version }"
FORGED = {"X-Forwarded-User": "root", "X-Forwarded-Groups": "admins", "X-Proxy-Secret": "guess"}


@pytest.fixture(scope="module")
def deployment(
    server_url: str, project_root: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Deployment]:
    with (
        _group_roles(server_url),
        new_database(server_url, "template1") as url,
        deployed(project_root, tmp_path_factory.mktemp("deployment"), url) as running,
    ):
        yield running


@pytest.fixture(scope="module")
def trust(deployment: Deployment) -> ssl.SSLContext:
    return ssl.create_default_context(cafile=str(deployment.secrets / "proxy_tls_certificate"))


class Door:
    """A client of one of the proxy's two ports, with or without a password."""

    def __init__(self, deployment: Deployment, trust: ssl.SSLContext, door: str, user: str | None) -> None:
        self.port, self._user = deployment.ports[door], user
        self.trust = trust
        self.client = httpx.Client(
            base_url=f"https://127.0.0.1:{self.port}",
            verify=trust,
            auth=USERS[user] if user else None,
            timeout=120,
        )

    def ask(self, query: str, **variables: Any) -> dict[str, Any]:
        answer = self.client.post("/graphql", json={"query": query, "variables": variables})
        assert answer.status_code == 200, answer.text
        return answer.json()["data"]

    def socket(self, origin: str | None = None) -> websockets.sync.client.ClientConnection:
        auth = httpx.BasicAuth(*USERS[self._user]) if self._user else None
        headers = {}
        if auth:
            headers["Authorization"] = auth._auth_header
        return websockets.sync.client.connect(
            f"wss://127.0.0.1:{self.port}/graphql",
            ssl=self.trust,
            subprotocols=["graphql-ws"],  # type: ignore[list-item]
            additional_headers=headers,
            origin=origin,  # type: ignore[arg-type]
        )


@pytest.fixture
def door(deployment: Deployment, trust: ssl.SSLContext) -> Iterator[Any]:
    opened: list[Door] = []

    def make(name: str, user: str | None = None) -> Door:
        made = Door(deployment, trust, name, user)
        opened.append(made)
        return made

    yield make
    for each in opened:
        each.client.close()


def launch(at: Door, job: str = "refresh_training_completions") -> dict[str, Any]:
    at.client.headers.update(FORGED)
    selector = {"repositoryLocationName": LOCATION, "repositoryName": REPOSITORY, "jobName": job}
    return at.ask(LAUNCH, params={"selector": selector, "runConfigData": "{}", "mode": "default"})[
        "launchRun"
    ]


def runs(deployment: Deployment) -> int:
    with deployment.connect() as conn:
        row = conn.execute("select count(*) from dagster.runs").fetchone()
    assert row is not None
    return row[0]


def test_the_health_check_of_every_service_detects_when_it_is_down(deployment: Deployment) -> None:
    # The fixture has waited until all checks passed. The same checks without a listening service:
    ports = deployment.ports
    deployment.ports = dict.fromkeys(ports, 9)
    try:
        for service in ("nats", "code", "webserver", "webserver-readonly", "proxy"):
            assert deployment.health(service).returncode != 0, service
    finally:
        deployment.ports = ports


def test_services_listen_on_loopback_only(deployment: Deployment) -> None:
    for service in ("nats", "code", "webserver", "webserver-readonly", "web", "daemon", "proxy"):
        for address in deployment.listening(service):
            assert ipaddress.ip_address(address.removeprefix("::ffff:")).is_loopback, (service, address)
    assert deployment.listening("webserver") == {"127.0.0.1"}


PATHS = [
    "/", "/graphql", "/server_info", "/runs", "/healthz/", "/healthz/../graphql", "/healthz/..%2fgraphql",
    "/healthz%2f..%2fgraphql", "//graphql", "//healthz/..//graphql", "/./graphql", "/%67raphql", "/graphql;/healthz",
    "/graphql%3f/healthz", "/graphql?/healthz", "/HEALTHZ", "/healthz%00", "/logs/a/stdout", "/download_debug/x",
    "/report_asset_materialization/a", "/static/../graphql",
]  # fmt: skip


def raw(at: Door, request: str) -> int:
    """Sends a request literally. Returns its status, or 0 if the connection is closed without a response."""
    with (
        socket.create_connection(("127.0.0.1", at.port), timeout=60) as plain,
        at.trust.wrap_socket(plain, server_hostname="127.0.0.1") as tls,
    ):
        tls.sendall(request.encode())
        head = tls.recv(4096).decode(errors="replace")
    found = re.match(r"HTTP/1\.[01] (\d+)", head)
    return int(found[1]) if found else 0


@pytest.mark.parametrize("name", DOORS)
def test_without_a_password_every_request_gets_401(door: Any, name: str) -> None:
    at = door(name)
    for path in PATHS:
        for method in ("GET", "POST", "HEAD", "OPTIONS", "PROPFIND"):
            body = "Content-Length: 0\r\n" if method == "POST" else ""
            request = f"{method} {path} HTTP/1.1\r\nHost: localhost\r\n{body}Connection: close\r\n\r\n"
            assert raw(at, request) in (400, 401), (method, path)
    for trick in (
        "GET https://localhost/graphql HTTP/1.1\r\nHost: localhost\r\n",
        "GET /healthz HTTP/1.1\r\nHost: localhost\r\nX-Original-URL: /graphql\r\nX-Rewrite-URL: /graphql\r\n",
        "GET /graphql HTTP/1.1\r\nHost: localhost\r\nX-Forwarded-For: 127.0.0.1\r\nX-Real-IP: 127.0.0.1\r\n",
        "GET /graphql HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer x\r\n",
        "GET /graphql HTTP/1.1\r\nHost: localhost\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABkAARAAAAAAAIAAAAA\r\n",
        "GET /graphql HTTP/1.0\r\n",
        "CONNECT 127.0.0.1:3000 HTTP/1.1\r\nHost: localhost\r\n",
    ):
        # /healthz answers without details.
        allowed = (204,) if trick.startswith("GET /healthz") else (400, 401, 405)
        assert raw(at, f"{trick}Connection: close\r\n\r\n") in allowed, trick
    assert at.client.get("/", auth=("vera", "wrong")).status_code == 401
    assert at.client.get("/", auth=("nobody", "")).status_code == 401
    assert at.client.get("/healthz").content == b""
    with pytest.raises(InvalidStatus) as refused:
        at.socket()
    assert refused.value.response.status_code == 401


def test_without_tls_no_password_is_accepted(deployment: Deployment) -> None:
    for name in DOORS:
        answer = httpx.get(f"http://127.0.0.1:{deployment.ports[name]}/", auth=USERS[name])
        assert answer.status_code == 400


def test_a_viewer_sees_everything_and_changes_nothing(deployment: Deployment, door: Any) -> None:
    viewer = door("viewers", "viewers")
    assert "<html" in viewer.client.get("/").text
    assert viewer.ask(VERSION)["version"]
    assert viewer.client.get("/server_info").status_code == 200
    before = runs(deployment)
    assert launch(viewer)["__typename"] == "UnauthorizedError"
    for endpoint in ("materialization", "check", "observation"):
        body = {"check_name": "c", "passed": True} if endpoint == "check" else {}
        answer = viewer.client.post(f"/report_asset_{endpoint}/progress/cohort_stats", json=body)
        assert answer.status_code == 401, answer.text
    assert runs(deployment) == before
    # The password is valid at its own port only.
    assert door("operators", "viewers").client.get("/").status_code == 401


def test_an_operators_launch_is_accepted_and_its_run_succeeds(deployment: Deployment, door: Any) -> None:
    operator = door("operators", "operators")
    launched = launch(operator)
    assert launched["__typename"] == "LaunchRunSuccess", launched
    run_id = launched["run"]["runId"]
    viewer = door("viewers", "viewers")
    ended = {"SUCCESS", "FAILURE", "CANCELED"}
    status = wait_for(
        "the run",
        lambda: (s := viewer.ask(STATUS, id=run_id)["runOrError"]["status"]) in ended and s,
        timeout=400,
    )
    assert status == "SUCCESS"
    # Whatever other name the request contains.
    with deployment.connect() as conn:
        tags = "select value from dagster.run_tags where run_id = %s and key = 'dagster/user'"
        assert conn.execute(tags, [run_id]).fetchall() == [("olga",)]
        noted = "select who, login, outcome from backfill.audit where %s = any(runs)"
        assert conn.execute(noted, [run_id]).fetchall() == [("olga", "backfills_runs", "done")]


@pytest.mark.parametrize("service", ["webserver", "webserver-readonly"])
def test_requests_that_bypass_the_proxy_are_rejected(deployment: Deployment, service: str) -> None:
    before = runs(deployment)
    address = f"http://127.0.0.1:{deployment.ports[service]}"
    for forged in ({}, {"X-Forwarded-User": "olga"}, {"X-Forwarded-User": "olga", "X-Proxy-Secret": "guess"}):
        answer = httpx.post(f"{address}/graphql", json={"query": VERSION}, headers=forged)
        assert (answer.status_code, "did not come through the proxy" in answer.text) == (403, True)
        assert httpx.get(f"{address}/", headers=forged).status_code == 403
    assert runs(deployment) == before


@pytest.mark.parametrize("name", DOORS)
def test_subscriptions_work_through_the_proxy(door: Any, name: str) -> None:
    at = door(name, name)
    with at.socket(origin=f"https://127.0.0.1:{at.port}") as ws:
        assert ws.subprotocol == "graphql-ws"
        ws.send(json.dumps({"type": "connection_init", "payload": {}}))
        assert json.loads(ws.recv(60))["type"] == "connection_ack"


def test_a_viewer_launches_nothing_through_a_websocket_either(deployment: Deployment, door: Any) -> None:
    before = runs(deployment)
    at = door("viewers", "viewers")
    with at.socket() as ws:
        ws.send(json.dumps({"type": "connection_init", "payload": {}}))
        assert json.loads(ws.recv(60))["type"] == "connection_ack"
        selector = {"repositoryLocationName": LOCATION, "repositoryName": REPOSITORY}
        params = {
            "selector": selector | {"jobName": "refresh_training_completions"},
            "runConfigData": "{}",
            "mode": "default",
        }
        question = {"query": LAUNCH, "variables": {"params": params}}
        ws.send(json.dumps({"type": "start", "id": "1", "payload": question}))
        answer = json.loads(ws.recv(60))
        while answer["type"] == "ka":
            answer = json.loads(ws.recv(60))
        assert "LaunchRunSuccess" not in json.dumps(answer)
    assert runs(deployment) == before


@pytest.mark.parametrize("name", DOORS)
def test_another_site_can_not_use_a_browsers_saved_password(
    deployment: Deployment, door: Any, name: str
) -> None:
    at = door(name, name)
    before = runs(deployment)
    own, foreign = {"Origin": f"https://127.0.0.1:{at.port}"}, {"Origin": "https://elsewhere.example"}
    sandboxed = {"Origin": "null"}
    lookalike = {"Origin": f"https://127.0.0.1:{at.port}.elsewhere.example"}
    question = {"query": VERSION}
    assert at.client.post("/graphql", json=question, headers=own).status_code == 200
    for origin in (foreign, sandboxed, lookalike):
        assert at.client.post("/graphql", json=question, headers=origin).status_code == 403
        assert at.client.post("/report_asset_materialization/a", json={}, headers=origin).status_code == 403
    # A link, and a form.
    assert at.client.get("/graphql", params={"query": LAUNCH}).status_code == 405
    assert at.client.post("/graphql", params={"query": LAUNCH}).status_code == 415
    assert at.client.post("/graphql", data={"query": LAUNCH}).status_code == 415
    assert at.client.post("/%67raphql", params={"query": LAUNCH}).status_code == 415
    with pytest.raises(InvalidStatus) as refused:
        at.socket(origin="https://elsewhere.example")
    assert refused.value.response.status_code == 403
    assert runs(deployment) == before


def test_no_secret_is_in_a_log_or_in_the_database(deployment: Deployment) -> None:
    planted = [
        (deployment.secrets / name).read_text().strip()
        for name in ("runs_password", "migrator_password", "nats_password", "proxy_secret")
    ]
    texts = {str(file): file.read_text(errors="replace") for file in deployment.folder.glob("*.log")}
    for file in deployment.home.rglob("*"):
        if file.is_file():
            texts[str(file)] = file.read_text(errors="replace")
    assert len(texts) > 5
    with deployment.connect() as conn:
        for schema, table in conn.execute(
            "select schemaname, tablename from pg_tables where schemaname not in ('pg_catalog', 'information_schema')"
        ).fetchall():
            rows = conn.execute(f'select t::text from "{schema}"."{table}" as t').fetchall()  # noqa: S608
            texts[f"{schema}.{table}"] = "\n".join(row[0] for row in rows)
    assert texts["dagster.event_logs"]
    assert [(place, secret) for place, text in texts.items() for secret in planted if secret in text] == []


@pytest.fixture
def programs(deployment: Deployment, trust: ssl.SSLContext) -> Iterator[httpx.Client]:
    """A client of the API's port, without credentials."""
    address = f"https://127.0.0.1:{deployment.ports['doors']}"
    with httpx.Client(base_url=address, verify=trust, timeout=120) as client:
        yield client


def test_programs_authenticate_by_token_and_operators_by_password(
    deployment: Deployment, programs: httpx.Client
) -> None:
    [admin] = json.loads((deployment.secrets / "doors_tokens").read_text())
    token = {"Authorization": f"Bearer {admin['token']}"}
    assert programs.get("/health").json()["service"] == "backfills"
    assert programs.get("/import/backfill", headers=token).json() == {"jobs": []}
    assert programs.get("/import/backfill", auth=USERS["operators"]).json() == {"jobs": []}
    job = "/import/backfill/00000000-0000-0000-0000-000000000000/cancel"
    assert programs.post(job, auth=USERS["operators"]).status_code == 404
    assert (
        programs.post(job, auth=USERS["operators"], headers={"Origin": "https://evil.example"}).status_code
        == 403
    )
    launched = programs.post("/api/backfills/training_completions/run", headers=token).json()
    wait_for("the run", lambda: programs.get(launched["statusUrl"], headers=token).json()["finished"], 240)
    assert programs.get(launched["statusUrl"], headers=token).json()["success"]


def test_forged_identity_headers_are_rejected(deployment: Deployment, programs: httpx.Client) -> None:
    for headers in (
        {}, {"X-Forwarded-User": "olga"}, {"Authorization": "Bearer nothing"}, {"Authorization": "bearer x"},
        {"Authorization": "Bearer x", "X-Forwarded-User": "olga", "X-Forwarded-Role": "operator"},
        {"X-Proxy-Secret": "guessed", "X-Forwarded-User": "olga"},
    ):  # fmt: skip
        assert programs.get("/import/backfill", headers=headers).status_code in (401, 429), headers
    assert programs.get("/import/backfill", auth=USERS["viewers"]).status_code == 401
