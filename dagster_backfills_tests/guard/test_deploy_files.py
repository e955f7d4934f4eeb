"""`deploy/`, the Dockerfile and the lock files, checked against schemas and against each other."""

import json
import re
import subprocess
import sys
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any

import dagster as dg
import pytest
import yaml
from dagster._config import process_config, resolve_to_config_type

from dagster_backfills_tests.domains.queue.stand_ins import StandIn, serving


@pytest.fixture(scope="module")
def compose(project_root: Path) -> dict[str, Any]:
    return yaml.safe_load((project_root / "deploy" / "compose.yaml").read_text())


@pytest.mark.programs
def test_the_compose_file_conforms_to_the_compose_specification(project_root: Path) -> None:
    checker = str(Path(sys.executable).with_name("check-jsonschema"))
    done = subprocess.run(
        [checker, "--builtin-schema", "vendor.compose-spec", str(project_root / "deploy" / "compose.yaml")],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout


def test_every_service_has_limits_and_every_long_running_one_a_health_check(compose: dict[str, Any]) -> None:
    for name, service in compose["services"].items():
        limits = service["deploy"]["resources"]["limits"]
        assert {"cpus", "memory"} == set(limits), name
        assert name == "migrate" or service["healthcheck"]["test"][0] == "CMD", name


def test_only_the_proxy_is_reachable_from_outside(compose: dict[str, Any]) -> None:
    services = compose["services"]
    assert [name for name, service in services.items() if "ports" in service] == ["proxy"]
    assert {name for name, service in services.items() if "outside" in service["networks"]} == {
        "proxy",
        "code",
    }
    assert compose["networks"]["inside"]["internal"] is True


@pytest.mark.programs
def test_secrets_are_files_and_each_service_gets_only_its_own(
    compose: dict[str, Any], project_root: Path, tmp_path: Path
) -> None:
    services = compose["services"]
    subprocess.run([str(project_root / "deploy" / "make-secrets.sh"), str(tmp_path / "s")], check=True)
    made = {file.name for file in (tmp_path / "s").iterdir()}
    assert {Path(each["file"]).name for each in compose["secrets"].values()} <= made
    for name, service in services.items():
        for variable, value in service.get("environment", {}).items():
            secret = re.search(r"(?i)password|secret|token|url|key", variable)
            assert not secret or value.startswith("/run/secrets"), (name, variable)
            if value.startswith("/run/secrets/"):
                assert Path(value).name in service["secrets"], (name, variable)
    has_admin = {
        name for name, service in services.items() if "postgres_password" in service.get("secrets", [])
    }
    has_owner = {name for name, service in services.items() if "migrator_url" in service.get("secrets", [])}
    assert (has_admin, has_owner) == ({"postgres"}, {"migrate"})
    for file in ("../dagster.yaml", "workspace.yaml", "../sql/roles.sql", "postgres/logins.sh"):
        assert file in {each["file"] for each in compose["configs"].values()}
        assert (project_root / "deploy" / file).is_file()


@pytest.mark.programs
def test_existing_secrets_are_kept_and_their_folder_is_private(project_root: Path, tmp_path: Path) -> None:
    folder = tmp_path / "secrets"
    script = str(project_root / "deploy" / "make-secrets.sh")
    subprocess.run([script, str(folder)], check=True)
    first = {file.name: file.read_bytes() for file in folder.iterdir()}
    subprocess.run([script, str(folder)], check=True)
    assert {file.name: file.read_bytes() for file in folder.iterdir()} == first
    assert folder.stat().st_mode & 0o777 == 0o700
    assert first["runs_password"].strip() in first["runs_url"]
    assert len({first[name] for name in first if name.endswith("_password")}) == 4


def test_our_containers_do_not_run_as_root_and_have_read_only_file_systems(
    compose: dict[str, Any], project_root: Path
) -> None:
    dockerfile = (project_root / "Dockerfile").read_text()
    assert re.findall(r"^USER (\S+)", dockerfile, re.M) == ["10001:10001"]
    assert dockerfile.count("FROM ") == 2 and "--require-hashes" in dockerfile
    for name in ("migrate", "code", "webserver", "webserver-readonly", "web", "daemon", "proxy", "nats"):
        service = compose["services"][name]
        assert service["read_only"] is True and service["cap_drop"] == ["ALL"], name


def test_every_file_that_the_image_is_built_from_exists_and_is_not_ignored(project_root: Path) -> None:
    dockerfile = (project_root / "Dockerfile").read_text()
    kept = {line[1:] for line in (project_root / ".dockerignore").read_text().splitlines() if line[:1] == "!"}
    copied = {
        word.removeprefix("./")
        for line in re.findall(r"^COPY (?!--from)(.+)$", dockerfile, re.M)
        for word in line.split()[:-1]
    }
    assert copied == kept
    assert all((project_root / name).exists() for name in copied)


LOCKS = ["requirements.lock", "requirements-dev.lock", "requirements-k8s.lock", "requirements-build.lock"]


@pytest.mark.parametrize("name", LOCKS)
def test_every_locked_package_has_one_version_and_a_hash_and_no_host(project_root: Path, name: str) -> None:
    text = (project_root / name).read_text()
    entries = re.split(r"\n(?=\S)", re.sub(r"^#.*\n", "", text, flags=re.M).strip())
    assert len(entries) >= 5
    for entry in entries:
        assert re.match(r"[A-Za-z0-9._-]+(\[[a-z0-9, _-]+\])?==\S+", entry), entry[:80]
        assert "--hash=sha256:" in entry, entry[:80]
    assert "://" not in text


# ---- Kubernetes


def test_the_instance_on_kubernetes_differs_only_in_its_launcher(project_root: Path) -> None:
    here = yaml.safe_load((project_root / "dagster.yaml").read_text())
    there = yaml.safe_load((project_root / "deploy" / "helm" / "dagster.yaml").read_text())
    assert there.pop("run_launcher")["class"] == "K8sRunLauncher"
    del here["run_launcher"]
    assert there == here


# Environment variables that the chart's pods always have, and that a setting could name.
CHARTS_VARIABLES = {"DAGSTER_HOME", "DAGSTER_K8S_PIPELINE_RUN_NAMESPACE"}
NO_CLUSTER = {
    "apiVersion": "v1",
    "kind": "Config",
    "clusters": [{"name": "none", "cluster": {"server": "https://127.0.0.1:9"}}],
    "users": [{"name": "none", "user": {}}],
    "contexts": [{"name": "none", "context": {"cluster": "none", "user": "none"}}],
    "current-context": "none",
}


def test_a_runs_pod_follows_the_instance_and_the_charts_values(
    project_root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from dagster_k8s import K8sRunLauncher
    from dagster_k8s.job import construct_dagster_k8s_job

    text = (project_root / "deploy" / "helm" / "dagster.yaml").read_text()
    values = yaml.safe_load((project_root / "deploy" / "helm" / "values.yaml").read_text())
    assert set(re.findall(r"\{env: (\w+)\}", text)) <= CHARTS_VARIABLES
    monkeypatch.setenv("DAGSTER_K8S_PIPELINE_RUN_NAMESPACE", "space")
    (tmp_path / "kubeconfig").write_text(yaml.safe_dump(NO_CLUSTER))
    here = {"load_incluster_config": False, "kubeconfig_file": str(tmp_path / "kubeconfig")}
    config = yaml.safe_load(text)["run_launcher"]["config"] | here
    found = process_config(resolve_to_config_type(K8sRunLauncher.config_type()), config)
    assert found.success and found.value is not None, found.errors
    launcher = K8sRunLauncher.from_config_value(None, found.value)
    context = launcher.get_container_context_for_run(dg.DagsterRun("a_job"))
    assert context.namespace == "space"
    job = construct_dagster_k8s_job(
        context.get_k8s_job_config("image", launcher),
        ["dagster"],
        "name",
        user_defined_k8s_config=context.run_k8s_config,
    )
    pod = job.spec.template.spec
    (container,) = pod.containers
    home = values["global"]["dagsterHome"]
    assert (
        pod.service_account_name == values["global"]["serviceAccountName"] == values["serviceAccount"]["name"]
    )
    assert {each.name: each.value for each in container.env} == {"DAGSTER_HOME": home}
    (secret,) = values["dagsterDaemon"]["envSecrets"]
    assert [each.secret_ref.name for each in container.env_from] == [secret["name"]]
    assert found.value["instance_config_map"] == values["global"]["dagsterInstanceConfigMap"]
    assert pod.security_context.run_as_non_root and pod.security_context.run_as_user == 10001
    assert container.security_context.capabilities.drop == ["ALL"]
    assert container.resources.limits and job.spec.backoff_limit == 0
    # Otherwise runs would get the code server's resources.
    (deployment,) = values["dagster-user-deployments"]["deployments"]
    assert deployment["includeConfigInLaunchedRuns"] == {"enabled": False}


def test_the_charts_pods_can_start_with_the_values_alone(project_root: Path) -> None:
    values = yaml.safe_load((project_root / "deploy" / "helm" / "values.yaml").read_text())
    dockerfile = (project_root / "Dockerfile").read_text()
    # The image's user owns Dagster's home; a mount point would belong to root.
    assert f"-o backfills -g backfills {values['global']['dagsterHome']}" in dockerfile
    webserver = values["dagsterWebserver"]
    assert webserver["readinessProbe"]["httpGet"]["port"] == webserver["service"]["port"]
    # Every pod requires its key `postgresql-password`.
    how_to = (project_root / "docs" / "how-to" / "deploy.md").read_text()
    name = values["global"]["postgresqlSecretName"]
    assert f"create secret generic {name} --from-literal=postgresql-password=" in how_to


# ---- the audit


class Advisories(BaseHTTPRequestHandler):
    """A stand-in for OSV's query, which answers from `server.known`: advisories by package."""

    def do_POST(self) -> None:
        asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        known = self.server.known.get(asked["package"]["name"], [])  # type: ignore[attr-defined]
        body = json.dumps({"vulns": known} if known else {}).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *args: Any) -> None:
        pass


@pytest.fixture
def advisories() -> Iterator[StandIn]:
    server = StandIn(Advisories)
    server.known = {}  # type: ignore[attr-defined]
    with serving(server):
        yield server


def audit(project_root: Path, url: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, str(project_root / ".ci" / "audit.py"), "--osv-url", url, "requirements-build.lock"],
        capture_output=True, text=True, check=False, cwd=project_root,
    )  # fmt: skip


@pytest.mark.programs
def test_the_audit_distinguishes_clean_from_vulnerable_packages(
    project_root: Path, advisories: StandIn
) -> None:
    clean = audit(project_root, advisories.url)
    assert clean.returncode == 0, clean.stderr
    assert "packages audited; no known vulnerabilities" in clean.stderr
    event = {"type": "ECOSYSTEM", "events": [{"introduced": "0"}, {"fixed": "999.0"}]}
    package = {"name": "hatchling", "ecosystem": "PyPI"}
    advisories.known["hatchling"] = [  # type: ignore[attr-defined]
        {
            "id": "PYSEC-1",
            "summary": "bad",
            "details": "bad",
            "affected": [{"package": package, "ranges": [event]}],
        }
    ]
    vulnerable = audit(project_root, advisories.url)
    assert vulnerable.returncode == 1
    assert "hatchling" in vulnerable.stderr and "PYSEC-1, fixed in 999.0" in vulnerable.stderr


@pytest.mark.programs
def test_an_audit_without_a_connection_says_so_and_fails(project_root: Path) -> None:
    done = audit(project_root, "http://127.0.0.1:1")
    assert done.returncode == 3
    assert "Not audited" in done.stderr


# ---- the instance


def test_the_instance_loads_with_its_limits_and_telemetry_off(
    project_root: Path, database_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "dagster.yaml").write_text((project_root / "dagster.yaml").read_text())
    monkeypatch.setenv("DATABASE_URL", database_url)
    monkeypatch.delenv("DAGSTER_POSTGRES_URL", raising=False)
    with dg.DagsterInstance.from_config(str(tmp_path)) as instance:
        assert instance.telemetry_enabled is False
        assert instance.run_monitoring_enabled and instance.run_retries_enabled
        config = instance.get_concurrency_config()
        assert config.run_queue_config is not None and config.run_queue_config.max_concurrent_runs > 0
        assert config.pool_config.default_pool_limit == 1
        assert instance.get_settings("retention")["sensor"]["purge_after_days"]["skipped"] <= 7
        pool = "progress/cohort_stats"
        assert instance.event_log_storage.initialize_concurrency_limit_to_default(pool)
        first = instance.event_log_storage.claim_concurrency_slot(pool, "run-1", "step")
        second = instance.event_log_storage.claim_concurrency_slot(pool, "run-2", "step")
        assert first.is_claimed and not second.is_claimed
        instance.event_log_storage.free_concurrency_slots_for_run("run-1")
        assert instance.event_log_storage.claim_concurrency_slot(pool, "run-2", "step").is_claimed


def test_the_web_pod_is_configured_like_the_charts_pods(project_root: Path) -> None:
    values = yaml.safe_load((project_root / "deploy" / "helm" / "values.yaml").read_text())
    deployment, service = yaml.safe_load_all((project_root / "deploy" / "helm" / "web.yaml").read_text())
    daemon, pod = values["dagsterDaemon"], deployment["spec"]["template"]["spec"]
    (container,) = pod["containers"]
    assert container["image"] == f"{daemon['image']['repository']}:{daemon['image']['tag']}"
    assert pod["securityContext"] == daemon["podSecurityContext"]
    assert container["securityContext"] == daemon["securityContext"]
    assert [each["secretRef"] for each in container["envFrom"]] == daemon["envSecrets"]
    assert pod["serviceAccountName"] == values["global"]["serviceAccountName"]
    assert pod["volumes"][0]["configMap"]["name"] == values["global"]["dagsterInstanceConfigMap"]
    assert service["spec"]["selector"] == deployment["spec"]["template"]["metadata"]["labels"]
    assert deployment["spec"]["replicas"] == 1
