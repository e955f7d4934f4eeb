"""Secrets are planted in every place that accepts one, and appear nowhere in output, logs or tables."""

import base64
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any
from urllib.parse import quote

import psycopg
import pytest
from psycopg.conninfo import conninfo_to_dict
from psycopg.types.json import Jsonb

from dagster_backfills.errors import NotUsableError
from dagster_backfills.instance.dagster_home import with_search_path
from dagster_backfills.postgres.url import checked_url
from dagster_backfills.secret_files import SECRETS, read_secret_files
from dagster_backfills_tests.domains.kintell.sample import add_users, row, write_csv
from dagster_backfills_tests.domains.queue.stand_ins import StandIn, serving
from dagster_backfills_tests.programs import SCRIPT, run

PLANTED = {
    "database": "plantedDatabase7Kq",
    "dagster": "plantedDagster8Lw",
    "nats": "plantedNats9Xv",
    "openai": "sk-plantedOpenAi3Zt",
    "mux": "plantedMux4Rb",
    "smtp": "plantedSmtp5Ym",
}
# A server that received a password by HTTP basic authentication may quote it.
AS_SENT = base64.b64encode(f"the-id:{PLANTED['mux']}".encode()).decode()


class Telltale(BaseHTTPRequestHandler):
    """Rejects requests and quotes them, as careless servers do."""

    def _refuse(self) -> None:
        self.rfile.read(int(self.headers.get("Content-Length") or 0))
        sent = self.headers.get("Authorization", "")
        plain = base64.b64decode(sent[6:]).decode() if sent.startswith("Basic ") else sent
        message = f"Incorrect credentials: {sent} ({plain.removeprefix('Bearer ')})"
        self.server.asked.append((self.command, self.path))  # type: ignore[attr-defined]
        body = json.dumps({"error": {"message": message, "messages": [message], "type": "refused"}}).encode()
        self.send_response(401)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    do_GET = do_POST = do_PUT = _refuse

    def log_message(self, *args: Any) -> None:
        pass


class Planted:
    """A database with some work to do, and processes with the secrets in their environment."""

    def __init__(self, url: str, home: Path, telltale: StandIn) -> None:
        self.url, self.home = url, home
        given = conninfo_to_dict(url)
        self.place = f"/{given['dbname']}?host={quote(str(given['host']), safe='')}&port={given['port']}"
        self.environment = os.environ | {
            "DATABASE_URL": f"postgresql://postgres:{PLANTED['database']}@{self.place}",
            "DAGSTER_POSTGRES_URL": with_search_path(
                f"postgresql://postgres:{PLANTED['dagster']}@{self.place}", "dagster"
            ),
            "DAGSTER_HOME": str(home),
            "BACKFILLS_HOME": str(home),
            "KINTELL_NATS_URL": f"nats://user:{PLANTED['nats']}@127.0.0.1:1",
            "KINTELL_ALLOWED_LOCATIONS": str(home),
            "OPENAI_API_KEY": PLANTED["openai"],
            "OPENAI_BASE_URL": f"{telltale.url}/v1",
            "MUX_TOKEN_ID": "the-id",
            "MUX_TOKEN_SECRET": PLANTED["mux"],
            "MUX_BASE_URL": telltale.url,
            "JOBS_MEDIA_FOLDERS": str(home),
            "NOTIFY_EMAIL_FROM": "a@example.org",
            "NOTIFY_EMAIL_TO": "b@example.org",
            "NOTIFY_SMTP_HOST": "127.0.0.1",
            "NOTIFY_SMTP_PASSWORD": PLANTED["smtp"],
        }
        self.outputs: dict[str, str] = {}

    def run(self, jobs: list[tuple[str, dict[str, Any]]], more: Mapping[str, str] | None = None) -> list[str]:
        """Runs jobs. Returns those that failed."""
        done = run(
            [sys.executable, "-m", "dagster_backfills_tests.guard.jobs_process"],
            input=json.dumps(jobs),
            env=self.environment | dict(more or {}),
        )
        self.outputs[f"processes {len(self.outputs)}"] = done.stdout + done.stderr
        assert done.returncode == 0, done.stderr[-3000:]
        return [line.split()[0] for line in done.stdout.splitlines() if line.endswith(" False")]

    def cli(self, *arguments: str, **more: str) -> subprocess.CompletedProcess[str]:
        done = run([SCRIPT, *arguments], env=self.environment | more)
        self.outputs[f"command {len(self.outputs)}"] = done.stdout + done.stderr
        return done

    def places(self) -> dict[str, str]:
        """Everything that was written or printed, by place."""
        texts = dict(self.outputs)
        for file in self.home.rglob("*"):
            if file.is_file():
                texts[str(file)] = file.read_text(errors="replace")
        with psycopg.connect(self.url) as conn:
            for schema, table in conn.execute(
                "select schemaname, tablename from pg_tables"
                " where schemaname not in ('pg_catalog', 'information_schema')"
            ).fetchall():
                rows = conn.execute(f'select t::text from "{schema}"."{table}" as t').fetchall()  # noqa: S608
                texts[f"{schema}.{table}"] = "\n".join(row[0] for row in rows)
        return texts

    def found(self, *secrets: str) -> list[tuple[str, str]]:
        return [(place, s) for place, text in self.places().items() for s in secrets if s in text]


@pytest.fixture
def planted(database_url: str, project_root: Path, tmp_path: Path) -> Iterator[Planted]:
    shutil.copy(project_root / "dagster.yaml", tmp_path)
    with psycopg.connect(database_url, autocommit=True) as conn:
        conn.execute("create schema dagster")
        conn.execute("insert into training.training_videos values ('v1', 'Video', 1)")
        conn.execute("insert into training.organizations values ('o', 'Organization')")
        conn.execute(
            "insert into training.members (id, organization_id, user_email) values ('m', 'o', 'm@example.org')"
        )
        conn.execute("insert into progress.schools values ('s', 'School')")
        conn.execute("insert into progress.cohorts (id, school_id, name) values ('c', 's', 'One')")
        conn.execute(
            "create function public.refuse() returns trigger language plpgsql as"
            " $$ begin raise exception 'refused'; end $$"
        )
        conn.execute(
            "create trigger refuse before insert or update on progress.cohort_stats for each row"
            " execute function public.refuse()"
        )
        add_users(conn)
        (tmp_path / "film.mp4").write_bytes(b"film")
        film = Jsonb({"video_url": (tmp_path / "film.mp4").as_uri()})
        sop = Jsonb({"title": "T", "transcript": "Open it. " * 8, "duration": 3})
        conn.execute("select jobs.enqueue_background_job('mux_upload', %s)", [film])
        conn.execute("select jobs.enqueue_background_job('sop_generation', %s)", [sop])
    with serving(StandIn(Telltale)) as telltale:
        yield Planted(database_url, tmp_path, telltale)


DRAIN = {"idle_seconds": 1, "max_seconds": 30}


@pytest.mark.timeout(900)
@pytest.mark.e2e
def test_neither_successful_nor_failed_runs_write_a_secret(planted: Planted) -> None:
    file = write_csv(planted.home / "a.csv", [row(n) for n in range(5)])
    imported = {"file": str(file)}
    failed = planted.run(
        [
            ("refresh_training_completions", {}),
            ("refresh_progress_stats", {}),
            ("import_kintell_sessions", imported),
            ("publish_kintell_events", {}),
            ("drain_background_jobs", DRAIN),
        ]
    )
    assert failed == ["refresh_progress_stats", "publish_kintell_events"]
    unreachable = planted.environment["DATABASE_URL"].replace(planted.place, "127.0.0.1:1/nowhere")
    assert planted.run([("refresh_training_completions", {})], {"DATABASE_URL": unreachable})
    assert planted.cli("status", "training_completions", DATABASE_URL=unreachable).returncode == 3
    assert planted.cli("--debug", "status", "training_completions", DATABASE_URL=unreachable).returncode == 3
    assert planted.cli("failures").returncode in (0, 1)

    places = planted.places()
    errors = places["jobs.background_jobs"]
    assert "Incorrect credentials" in errors and "***" in errors
    assert "does not answer" in places["dagster.event_logs"]
    assert len([name for name in places if "compute_logs" in name or "/storage/" in name]) > 3
    assert planted.found(*PLANTED.values(), AS_SENT) == []


BROKEN = [
    "postgresq://user:{}@host/db",
    "postgresql://user:{}%zz@host/db",
    "postgresql://user:x@{}:1@host/db",
    "postgresql://user:x@{}@host/db",
    "postgresql://user:5432:{}/db",
]


@pytest.mark.timeout(900)
@pytest.mark.e2e
def test_an_invalid_url_is_named_and_not_quoted(planted: Planted) -> None:
    secret = "plantedBroken6Hn"
    for url in BROKEN:
        done = planted.cli("status", "training_completions", DATABASE_URL=url.format(secret))
        assert done.returncode == 3
        assert "DATABASE_URL is not a connection URL." in done.stderr
    done = planted.cli("--debug", "status", "training_completions", DATABASE_URL=BROKEN[0].format(secret))
    assert done.returncode == 3
    jobs = [("refresh_training_completions", {})]
    assert planted.run(jobs, {"DATABASE_URL": BROKEN[0].format(secret)})
    file = write_csv(planted.home / "a.csv", [row(n) for n in range(5)])
    events = [("import_kintell_sessions", {"file": str(file)}), ("publish_kintell_events", {})]
    nats = {"KINTELL_NATS_URL": f"nats://user:x@host:{secret}"}
    assert planted.run(events, nats) == ["publish_kintell_events"]
    assert "KINTELL_NATS_URL is not a URL" in planted.places()["dagster.event_logs"]
    assert "not a connection URL" in planted.places()["dagster.event_logs"]
    assert planted.found(secret) == []


def test_a_url_that_libpq_accepts_is_unchanged() -> None:
    for url in (
        "postgresql://u:p%40@h1:1,h2/db?options=-csearch_path%3Dx",
        "postgresql+psycopg2://u:p@h/db",
        "host=/run/postgresql dbname=db",
        "service=backfills",
        "postgresql://u@/db?host=@abstract",
    ):
        assert checked_url(url) == url


# ---- secrets from files


def test_a_secret_is_read_from_the_file_that_its_variable_names(tmp_path: Path) -> None:
    file = tmp_path / "secret"
    file.write_text("postgresql://u:p @h/db \n")
    for name in SECRETS:
        environment = {f"{name}_FILE": str(file), name: ""}
        read_secret_files(environment)
        assert environment[name] == "postgresql://u:p @h/db "
        environment = {f"{name}_FILE": str(file), name: "given"}
        read_secret_files(environment)
        assert environment[name] == "given"


def test_an_unreadable_secret_file_is_named(tmp_path: Path) -> None:
    (tmp_path / "binary").write_bytes(b"\xff\xfe")
    for file in ("absent", "binary", "."):
        with pytest.raises(NotUsableError, match="DATABASE_URL_FILE"):
            read_secret_files({"DATABASE_URL_FILE": str(tmp_path / file)})


@pytest.mark.programs
def test_a_program_is_started_with_the_secrets_and_its_own_options(tmp_path: Path) -> None:
    (tmp_path / "url").write_text("postgresql://u@h/db\n")
    env = {k: v for k, v in os.environ.items() if k != "DATABASE_URL"} | {
        "DATABASE_URL_FILE": str(tmp_path / "url")
    }
    show = 'printf "%s %s" "$DATABASE_URL" "$1"'
    done = subprocess.run(
        [SCRIPT, "exec", "sh", "-c", show, "sh", "--help"],
        env=env,
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stdout) == (0, "postgresql://u@h/db --help")
    absent = subprocess.run(
        [SCRIPT, "exec", "no-such-program"], env=env, capture_output=True, text=True, check=False
    )
    assert absent.returncode == 2
    assert "no-such-program" in absent.stderr


def test_every_secret_of_the_project_can_come_from_a_file(project_root: Path) -> None:
    example = (project_root / ".env.example").read_text()
    named = {
        line.split("=")[0].lstrip("#") for line in example.splitlines() if "=" in line and line[:1] == "#"
    }
    secret = {
        n
        for n in named
        if n.endswith(("_KEY", "_SECRET", "_PASSWORD", "DATABASE_URL", "POSTGRES_URL", "WEBHOOK_URL"))
    }
    assert secret - {"TEST_DATABASE_URL"} <= set(SECRETS)
    assert "KINTELL_NATS_URL" in SECRETS
