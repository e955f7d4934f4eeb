"""Servers for benchmarks and tests: a login with the role of deployments, and a webserver and a daemon with GraphQL.

Not here: what is launched on them, and the data.
"""

import json
import os
import secrets
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit, urlunsplit

import psycopg

from dagster_backfills.postgres.migrations import apply_roles

_LOGIN = "bench_writer"
_PASSWORD = secrets.token_hex(16)  # random, because the login stays on a server that is not embedded


def as_writer(url: str) -> str:
    """Return a migrated database's URL for a login with the privileges of `backfills_writer`, as in a deployment.

    `url` is the administrator's. The login may also create Dagster's own tables, in their schema.
    """
    with psycopg.connect(url, autocommit=True) as conn:
        conn.execute("create schema if not exists dagster")
        apply_roles(url)
        if conn.execute("select from pg_roles where rolname = %s", [_LOGIN]).fetchone() is None:
            conn.execute(f"create role {_LOGIN} in role backfills_writer")
        conn.execute(f"alter role {_LOGIN} login password '{_PASSWORD}'")
        conn.execute(f"grant create on schema dagster to {_LOGIN}")
    parts = urlsplit(url)
    host = parts.netloc.rpartition("@")[2]
    return urlunsplit(parts._replace(netloc=f"{_LOGIN}:{_PASSWORD}@{host}"))


class ServerFailed(RuntimeError):
    """A process exited before it answered. The message contains the end of its log."""


@dataclass(frozen=True)
class Webserver:
    """GraphQL client of a running webserver."""

    url: str

    def ask(self, query: str, **variables: Any) -> dict[str, Any]:
        """Return the `data` of the response. Raises RuntimeError for GraphQL errors."""
        body = json.dumps({"query": query, "variables": variables}).encode()
        request = urllib.request.Request(
            f"{self.url}/graphql", data=body, headers={"Content-Type": "application/json"}
        )
        with urllib.request.urlopen(request, timeout=300) as response:
            answer = json.load(response)
        if answer.get("errors"):
            raise RuntimeError(json.dumps(answer["errors"])[:2000])
        return answer["data"]


_IMPATIENT_DAEMON = """
import json, sys
from sqlalchemy import pool
haste = json.loads(sys.argv.pop(1))
class Kept(pool.QueuePool):
    def __init__(self, creator, **named):
        super().__init__(creator, **named, pool_size=2, max_overflow=-1, pre_ping=True)
if haste.get("sessions"):
    pool.NullPool = Kept
from dagster._core.remote_representation.external import RemoteSensor
from dagster._daemon import cli, controller, sensor
from dagster_backfills.instance import run_launcher
controller.DEFAULT_DAEMON_INTERVAL_SECONDS = haste.get("backfills", controller.DEFAULT_DAEMON_INTERVAL_SECONDS)
run_launcher.GRACE_SECONDS = haste.get("grace", run_launcher.GRACE_SECONDS)
if "sensors" in haste:
    sensor.MIN_INTERVAL_LOOP_TIME = haste["sensors"]
    RemoteSensor.min_interval_seconds = property(lambda self: haste["sensors"])
cli.main()
"""


def daemon_program(haste: Mapping[str, float] | None = None) -> list[str]:
    """The command that starts the daemon; for tests, with shorter intervals than the defaults.

    haste: `backfills` and `sensors` are the seconds between two ticks; `grace` is how long the lock of a started run
    may be free. `sessions: 1` keeps database sessions between ticks: opening them is a third of the daemon's work.
    """
    if not haste:
        return [str(Path(sys.executable).with_name("dagster-daemon"))]
    return [sys.executable, "-c", _IMPATIENT_DAEMON, json.dumps(dict(haste))]


@contextmanager
def dagster_servers(
    home: Path,
    module: str,
    environment: Mapping[str, str],
    *,
    working_directory: Path,
    haste: Mapping[str, float] | None = None,
    code_server: tuple[str, int] | None = None,
    start: Callable[[list[str], Path, Mapping[str, str], Path], Any] | None = None,
) -> Iterator[Webserver]:
    """Start a webserver and a daemon on `home` (with a `dagster.yaml`) for `module`, and stop both at the end.

    code_server: host and port of a code server for the module. By default, both start their own. haste: see
    `daemon_program`. start: starts a command, given its log, environment and folder. By default, a new interpreter.
    """
    port = free_port()
    env = {**os.environ, "DAGSTER_HOME": str(home), **environment}
    target = ["-m", module, "-d", str(working_directory)]
    if code_server is not None:
        target = ["-w", str(_workspace(home, module, *code_server))]
    program = str(Path(sys.executable).with_name("dagster-webserver"))
    webserver = [program, "-h", "127.0.0.1", "-p", str(port), *target]
    daemon = [*daemon_program(haste), "run", *target]
    logs = [home / "webserver.log", home / "daemon.log"]
    processes = [
        (start or _start)(command, log, env, working_directory)
        for command, log in zip([webserver, daemon], logs, strict=True)
    ]
    try:
        answers = Webserver(f"http://127.0.0.1:{port}")
        _wait_until_ready(answers, processes, logs)
        yield answers
    finally:
        stop_groups(processes)


def _workspace(home: Path, name: str, host: str, port: int) -> Path:
    """Write a workspace file like that of Compose, for this machine."""
    file = home / "workspace.yaml"
    server = {"host": host, "port": port, "location_name": name}
    file.write_text(json.dumps({"load_from": [{"grpc_server": server}]}))
    return file


def _start(command: list[str], log: Path, env: Mapping[str, str], cwd: Path) -> subprocess.Popen[bytes]:
    with log.open("wb") as output:
        return subprocess.Popen(
            command, stdout=output, stderr=subprocess.STDOUT, env=env, cwd=cwd, start_new_session=True
        )


_READY = """{
  workspaceOrError { ... on Workspace { locationEntries { locationOrLoadError {
    __typename ... on PythonError { message } } } } }
  instance { daemonHealth { allDaemonStatuses { daemonType required healthy } } }
}"""


def _wait_until_ready(
    webserver: Webserver, processes: list[Any], logs: list[Path], timeout: float = 600
) -> None:
    deadline = time.monotonic() + timeout
    while time.monotonic() < deadline:
        for process, log in zip(processes, logs, strict=True):
            if process.poll() is not None:
                raise ServerFailed(f"{log.stem} ended ({process.returncode}):\n{log.read_text()[-3000:]}")
        try:
            data = webserver.ask(_READY)
        except (urllib.error.URLError, ConnectionError):
            time.sleep(0.3)
            continue
        for entry in data["workspaceOrError"]["locationEntries"]:
            loaded = entry["locationOrLoadError"] or {}
            if loaded.get("__typename") == "PythonError":
                raise ServerFailed(f"the code location does not load: {loaded['message']}")
        daemons = data["instance"]["daemonHealth"]["allDaemonStatuses"]
        if daemons and all(each["healthy"] for each in daemons if each["required"]):
            return
        time.sleep(0.3)
    raise ServerFailed(f"not ready after {timeout} s:\n" + "\n".join(log.read_text()[-1500:] for log in logs))


def stop_groups(processes: list[Any]) -> None:
    """Kill each process group, including code servers and runs."""
    for process in processes:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
    deadline = time.monotonic() + 10
    while any(_lives(process) for process in processes) and time.monotonic() < deadline:
        time.sleep(0.05)


def _lives(process: subprocess.Popen[bytes]) -> bool:
    """Whether any process of the group is left. Reaps the leader first, because a zombie would count."""
    process.poll()
    try:
        os.killpg(process.pid, 0)
    except ProcessLookupError:
        return False
    return True


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]
