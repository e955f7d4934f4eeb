"""The services of `deploy/compose.yaml` as processes on loopback: the same commands, files and health checks.

The differences are in one table per service: ports, addresses and the folder of the secrets.
"""

import os
import re
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil
import psycopg
import yaml
from psycopg import sql
from psycopg.conninfo import conninfo_to_dict

PROGRAMS = ("nginx", "nats-server", "openssl", "psql", "wget")
USERS = {"viewers": ("vera", "look-but-do-not-touch"), "operators": ("olga", "hands-on-the-levers")}


def missing_programs() -> list[str]:
    return [name for name in PROGRAMS if shutil.which(name) is None]


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


@dataclass
class Deployment:
    root: Path
    folder: Path
    database_url: str
    compose: dict[str, Any]
    ports: dict[str, int] = field(default_factory=dict)
    processes: dict[str, subprocess.Popen[bytes]] = field(default_factory=dict)

    @property
    def secrets(self) -> Path:
        return self.folder / "secrets"

    @property
    def home(self) -> Path:
        return self.folder / "dagster"

    def here(self, service: str, text: str) -> str:
        """A word of the service's command or environment, adapted to this machine."""
        ports = {
            "4000": "code", "3000": service, "3001": "web", "8222": "nats_http",
            "8443": "viewers", "8444": "operators", "8445": "doors",
        }  # fmt: skip
        text = re.sub(
            r"\b(4000|3000|3001|8222|8443|8444|8445)\b",
            lambda found: str(self.ports.get(ports[found[0]], found[0])),
            text,
        )
        for there, here in {
            "webserver-readonly:": "127.0.0.1:",
            "webserver:": "127.0.0.1:",
            "0.0.0.0": "127.0.0.1",
            "/run/secrets": str(self.secrets),
            "/etc/backfills/workspace.yaml": str(self.root / "deploy" / "workspace.yaml"),
        }.items():
            text = text.replace(there, here)
        return "127.0.0.1" if text == "code" else text

    def command(self, service: str) -> list[str]:
        words = [self.here(service, word) for word in self.compose["services"][service]["command"]]
        return words if self._has_own_image(service) else ["backfills", "exec", *words]

    def environment(self, service: str) -> dict[str, str]:
        given = self.compose["services"][service].get("environment", {})
        scripts = Path(sys.executable).parent
        # Only those variables of the developer's environment that a program needs to start.
        return {
            "PATH": f"{scripts}:{os.environ['PATH']}:/usr/sbin",
            "HOME": str(self.folder),
            "DAGSTER_HOME": str(self.home),
            "BACKFILLS_HOME": str(self.folder / "backfills"),
            **{name: self.here(service, str(value)) for name, value in given.items()},
        }

    def start(self, service: str, **more: str) -> None:
        environment = self.environment(service) | more
        with (self.folder / f"{service}.log").open("ab") as log:
            self.processes[service] = subprocess.Popen(
                self.command(service),
                env=environment,
                cwd=self.folder,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )

    def run(self, service: str) -> None:
        """Runs a service to its end."""
        self.start(service)
        assert self.processes.pop(service).wait(300) == 0, self.log(service)

    def log(self, service: str) -> str:
        return (self.folder / f"{service}.log").read_text(errors="replace")[-4000:]

    def health(self, service: str) -> subprocess.CompletedProcess[str]:
        """Runs the service's health check once."""
        _, *words = self.compose["services"][service]["healthcheck"]["test"]
        words = [self.here("viewers" if service == "proxy" else service, word) for word in words]
        return subprocess.run(
            words,
            env=self.environment(service),
            cwd=self.folder,
            capture_output=True,
            text=True,
            check=False,
        )

    def wait_until_healthy(self, service: str, patience: float = 400) -> None:
        deadline = time.monotonic() + patience
        while (done := self.health(service)).returncode:
            process = self.processes[service]
            assert process.poll() is None, f"{service} ended ({process.returncode}): {self.log(service)}"
            assert time.monotonic() < deadline, f"{service}: {done.stderr[-2000:]}\n{self.log(service)}"
            time.sleep(0.2)

    def listening(self, service: str) -> set[str]:
        """The addresses at which the service's processes accept TCP connections."""
        root = psutil.Process(self.processes[service].pid)
        found = set()
        for process in [root, *root.children(recursive=True)]:
            for connection in process.net_connections("inet"):
                if connection.status == psutil.CONN_LISTEN:
                    found.add(connection.laddr.ip)
        return found

    def connect(self) -> psycopg.Connection:
        return psycopg.connect(self.database_url, autocommit=True)

    def _has_own_image(self, service: str) -> bool:
        return "build" not in self.compose["services"][service]

    def stop(self) -> None:
        parents = [psutil.Process(each.pid) for each in self.processes.values() if each.poll() is None]
        families = parents + [child for parent in parents for child in parent.children(recursive=True)]
        for each in families:
            with suppress(psutil.NoSuchProcess):
                each.kill()
        for process in self.processes.values():
            process.wait()


def prepare(deployment: Deployment, admin: str) -> None:
    """Creates what exists before the services: secrets, the database with roles and logins, the instance's folder."""
    root, folder = deployment.root, deployment.folder
    for each in ("dagster", "backfills", "proxy", "nats"):
        (folder / each).mkdir()
    shutil.copy(root / "dagster.yaml", deployment.home)
    subprocess.run([str(root / "deploy" / "make-secrets.sh"), str(deployment.secrets)], check=True)
    given = conninfo_to_dict(admin)
    for name in ("migrator_url", "runs_url"):
        file = deployment.secrets / name
        there = f"@/{given['dbname']}?host={given['host']}&port={given['port']}"
        file.write_text(file.read_text().replace("@postgres:5432/backfills", there))
    nats = deployment.secrets / "nats_configuration"
    text = nats.read_text().replace("port: 4222", f"host: 127.0.0.1\nport: {deployment.ports['nats']}")
    nats.write_text(
        text.replace("8222", str(deployment.ports["nats_http"])).replace('"/data"', f'"{folder / "nats"}"')
    )
    nats_url = deployment.secrets / "nats_url"
    nats_url.write_text(nats_url.read_text().replace("nats:4222", f"127.0.0.1:{deployment.ports['nats']}"))
    for door, (user, password) in USERS.items():
        hashed = subprocess.run(
            ["openssl", "passwd", "-6", "-stdin"], input=password, capture_output=True, text=True, check=True
        ).stdout.strip()
        (deployment.secrets / f"proxy_{door}").write_text(f"{user}:{hashed}\n")
    environment = {
        **os.environ,
        **{"POSTGRES_USER": str(given["user"]), "POSTGRES_DB": str(given["dbname"])},
        **{"PGHOST": str(given["host"]), "PGPORT": str(given["port"])},
        "MIGRATOR_PASSWORD_FILE": str(deployment.secrets / "migrator_password"),
        "RUNS_PASSWORD_FILE": str(deployment.secrets / "runs_password"),
    }
    as_postgres = [
        "psql",
        "-v",
        "ON_ERROR_STOP=1",
        "-qX",
        "-U",
        str(given["user"]),
        "-d",
        str(given["dbname"]),
    ]
    subprocess.run(
        [*as_postgres, "-f", str(root / "sql" / "roles.sql")],
        env=environment,
        check=True,
        capture_output=True,
    )
    subprocess.run([str(root / "deploy" / "postgres" / "logins.sh")], env=environment, check=True)


def render_proxy(deployment: Deployment) -> list[str]:
    """Writes nginx's configuration like its image does. Returns the arguments to start nginx with."""
    names = deployment.environment("proxy") | {"PROXY_STATE": str(deployment.folder / "proxy")}
    for door, upstream in (("VIEWERS", "webserver-readonly"), ("OPERATORS", "webserver"), ("DOORS", "web")):
        names[f"{door}_LISTEN"] = f"127.0.0.1:{deployment.ports[door.lower()]}"
        names[f"{door}_UPSTREAM"] = f"127.0.0.1:{deployment.ports[upstream]}"
    text = (deployment.root / "deploy" / "proxy" / "nginx.conf.template").read_text()
    filled = re.sub(r"\$\{([A-Z_]+)\}", lambda found: names[found[1]], text)
    configuration = deployment.folder / "nginx.conf"
    configuration.write_text(filled)
    arguments = [word.replace("/tmp/nginx.conf", str(configuration)) for word in deployment.command("proxy")]
    # Started by root, nginx runs its workers as another user, who may not enter this folder.
    return [
        f"{word} user root;" if word == "daemon off;" and os.getuid() == 0 else word for word in arguments
    ]


@contextmanager
def logins_are_gone_afterwards(admin: str) -> Iterator[None]:
    yield
    with psycopg.connect(admin, autocommit=True) as conn:
        for name in ("backfills_migrator", "backfills_runs"):
            if conn.execute("select from pg_roles where rolname = %s", [name]).fetchone() is not None:
                conn.execute(sql.SQL("drop owned by {}").format(sql.Identifier(name)))
                conn.execute(sql.SQL("drop role {}").format(sql.Identifier(name)))


@contextmanager
def deployed(
    root: Path, folder: Path, admin: str, more: Mapping[str, str] | None = None
) -> Iterator[Deployment]:
    """Runs all services until they are healthy. `admin`: the URL of an empty database."""
    with ExitStack() as stack:
        stack.enter_context(logins_are_gone_afterwards(admin))
        compose = yaml.safe_load((root / "deploy" / "compose.yaml").read_text())
        names = (
            "code",
            "webserver",
            "webserver-readonly",
            "web",
            "viewers",
            "operators",
            "doors",
            "nats",
            "nats_http",
        )
        deployment = Deployment(root, folder, admin, compose, {name: free_port() for name in names})
        stack.callback(deployment.stop)
        prepare(deployment, admin)
        deployment.run("migrate")
        deployment.start("nats")
        deployment.start("code", **(more or {}))
        deployment.wait_until_healthy("nats")
        deployment.wait_until_healthy("code")
        for service in ("webserver", "webserver-readonly", "web", "daemon"):
            deployment.start(service)
        command = render_proxy(deployment)
        deployment.compose["services"]["proxy"]["command"] = command
        deployment.start("proxy")
        for service in ("webserver", "webserver-readonly", "web", "daemon", "proxy"):
            deployment.wait_until_healthy(service)
        yield deployment
